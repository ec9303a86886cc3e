/* Two members of Debian's libcrypto.a, as OpenSSL itself would have them where it is configured without these parts.
 *
 * python.sh puts this into a copy of the archive in their place. If a later OpenSSL needs another name of one of them, the
 * link fails: nothing is left out unnoticed.
 */
#include <openssl/bio.h>
#include <openssl/comp.h>
#include <stdlib.h>

/* c_zstd.c under OPENSSL_NO_ZSTD. It compresses certificates, which no server that the agent calls asks for, and brings
 * the whole of libzstd: 0.7 MB, 0.3 MB of the layer. */
COMP_METHOD *COMP_zstd_oneshot(void);
void ossl_comp_zstd_cleanup(void);

COMP_METHOD *COMP_zstd(void) { return NULL; }
COMP_METHOD *COMP_zstd_oneshot(void) { return NULL; }
const BIO_METHOD *BIO_f_zstd(void) { return NULL; }
void ossl_comp_zstd_cleanup(void) {}

#ifdef __x86_64__
/* aes-gcm-avx512.s as it is for an assembler that does not know AVX-512 (the end of aes-gcm-avx512.pl): AES-GCM is done
 * by AES-NI then, on every processor. 0.7 MB for a second way to do what a few TLS records of the agent need. */
int ossl_vaes_vpclmulqdq_capable(void);
int ossl_vaes_vpclmulqdq_capable(void) { return 0; }

#define NEVER_CALLED(name) \
    void name(void);       \
    void name(void) { abort(); }
NEVER_CALLED(ossl_aes_gcm_init_avx512)
NEVER_CALLED(ossl_aes_gcm_setiv_avx512)
NEVER_CALLED(ossl_aes_gcm_update_aad_avx512)
NEVER_CALLED(ossl_aes_gcm_encrypt_avx512)
NEVER_CALLED(ossl_aes_gcm_decrypt_avx512)
NEVER_CALLED(ossl_aes_gcm_finalize_avx512)
NEVER_CALLED(ossl_gcm_gmult_avx512)
#endif
