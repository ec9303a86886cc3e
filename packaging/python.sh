#!/bin/sh
# Builds CPython from Debian's source package (Debian's patches and security updates in it) as one executable: every
# extension module that the agent can use, and OpenSSL, zlib and libffi from Debian's static libraries, linked in.
# Compared with Debian's own binary and its shared libraries that is 1.5 MB less in the compressed layer and 4 MB less of
# resident memory (docs/image.md).
#
# PROFILE=on builds it twice, the second time with what a profile of the first has shown (profile.py): faster, but a
# profile is never the same twice, and so neither are the bytes. A release is built without.
#
# Usage: [PROFILE=on] python.sh DIRECTORY      a fresh directory; leaves source/ in it, built up to the last link
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"

# Where the source packages are is where the packages are, in either format of apt's lists.
for list in /etc/apt/sources.list.d/*.sources; do
  [ ! -e "$list" ] || sed -i 's/^Types: deb$/Types: deb deb-src/' "$list"
done
[ ! -e /etc/apt/sources.list ] || sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >/etc/apt/sources.list.d/sources.list
apt-get update -qq
version=$(python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
apt-get source -qq --download-only -o APT::Sandbox::User=root "$version"
# apt has checked the archive's signature; this says which version of it a commit stands for.
sha256sum --quiet --check "$here/sources.sha256" || {
  echo "cannot build the interpreter: Debian's source package of $version is another one than packaging/sources.sha256" \
    "names ($(ls ./*.dsc)); run make bump, look at what changed, and commit it" >&2
  exit 1
}
dpkg-source --no-check -x ./*.dsc source >/dev/null
# What gcc writes into __DATE__ and __TIME__: the day of Debian's change, not that of the build.
SOURCE_DATE_EPOCH=$(dpkg-parsechangelog -l source/debian/changelog -S Timestamp)
export SOURCE_DATE_EPOCH
rm -rf /var/lib/apt/lists/*

# The libraries to link in, without tables for unwinding a stack of C: tracebacks are Python's, and extension modules in
# Rust unwind theirs by their own tables. 1.2 MB with CPython's, 0.4 MB of the layer.
lean=$PWD/lean
mkdir "$lean"
for archive in libcrypto.a libffi.a libssl.a libz.a; do
  objcopy --remove-section .eh_frame --remove-section .rela.eh_frame "$(gcc -print-file-name=$archive)" "$lean/$archive"
done
# And OpenSSL without what openssl_without.c stands in for. A symbol that is missing then fails the link.
gcc -O2 -Wall -Wextra -Werror -fno-pie -fno-asynchronous-unwind-tables -c "$here/openssl_without.c" -o "$lean/without.o"
ar d "$lean/libcrypto.a" libcrypto-lib-c_zstd.o libcrypto-lib-aes-gcm-avx512.o
ar r "$lean/libcrypto.a" "$lean/without.o"

mkdir source/build
cd source/build
../configure --quiet --prefix=/opt/arbitrium-agent --without-doc-strings --disable-test-modules \
  --without-ensurepip --without-static-libpython --with-ssl-default-suites=openssl $([ "${PROFILE:-off}" = off ] || echo --enable-optimizations) \
  MODULE_BUILDTYPE=static \
  CFLAGS="-g0 -O2 -fno-pie -fno-asynchronous-unwind-tables -fstack-protector-strong -D_FORTIFY_SOURCE=2 \
-ffunction-sections -fdata-sections" \
  LDFLAGS=-no-pie ZLIB_LIBS="$lean/libz.a" LIBFFI_LIBS="$lean/libffi.a"
# Terminals, databases, other compressions, XML, East Asian encodings and what tests need: nothing asks for them here.
cat >Modules/Setup.local <<SETUP
*disabled*
_tkinter _dbm _gdbm _sqlite3 _curses _curses_panel readline _bz2 _lzma _uuid _lsprof pyexpat _elementtree
_codecs_cn _codecs_hk _codecs_iso2022 _codecs_jp _codecs_kr _codecs_tw _multibytecodec
_interpchannels _interpqueues _interpreters xxlimited xxlimited_35 xxsubtype
_testbuffer _testcapi _testclinic _testimportmultiple _testinternalcapi _testmultiphase _testexternalinspection
SETUP
make --silent Makefile # takes that list in
# configure insists on -lssl -lcrypto; the static libraries are meant.
sed -i "s|-lssl -lcrypto|-lcrypto|; s|-lcrypto|$lean/libssl.a $lean/libcrypto.a $lean/libz.a -pthread|" Makefile
gcc="gcc -no-pie -Wl,-O1,--gc-sections,-z,relro,--exclude-libs,libssl.a:libcrypto.a:libz.a:libffi.a"
if [ "${PROFILE:-off}" = off ]; then
  make --silent -j "$(nproc)" python pybuilddir.txt CC="$gcc" # the second holds facts about the build
else
  make --silent -j "$(nproc)" profile-opt PROFILE_TASK="$here/profile.py" CC="$gcc"
fi
# The last step, for assemble.py, which puts another main program and other paths in.
rm python
make --silent --dry-run python CC="$gcc \$\$OPTIONS" | grep -e ' -o python ' >link
