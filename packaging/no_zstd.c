/* What OpenSSL itself has where it is configured without zstd (its crypto/comp/c_zstd.c, under OPENSSL_NO_ZSTD).
 *
 * Debian's libcrypto.a offers to compress certificates with zstd and pulls all of that library into the executable: 0.3 MB
 * of the layer, for something that no server which the agent calls asks for. These definitions come before the archive at
 * the last link, so its member is not taken. If a later OpenSSL needs another name of that member, both are there, and
 * the link fails.
 */
#include <openssl/bio.h>
#include <openssl/comp.h>

COMP_METHOD *COMP_zstd_oneshot(void);
void ossl_comp_zstd_cleanup(void);

COMP_METHOD *COMP_zstd(void) { return NULL; }
COMP_METHOD *COMP_zstd_oneshot(void) { return NULL; }
const BIO_METHOD *BIO_f_zstd(void) { return NULL; }
void ossl_comp_zstd_cleanup(void) {}
