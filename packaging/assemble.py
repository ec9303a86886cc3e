"""Puts the runtime directory together: interpreter, loader, libraries, standard library, dependencies, agent.

Runs in the build stage of the Dockerfile, with the interpreter that goes into the directory. What is left out, and why,
stands in the lists below; `docs/image.md` has the measurements behind the decisions.
"""

import argparse
import compileall
import fnmatch
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"

# Parts of the standard library that a program without a terminal, a screen, a database or a test has no use for. Every
# import statement of the agent is resolved against what is left (check.py), so a wrong name here fails the build.
STANDARD_LIBRARY_WITHOUT = (
    *"""
    test unittest doctest.py pdb.py bdb.py cmd.py pydoc.py pydoc_data idlelib _pyrepl code.py codeop.py
    rlcompleter.py ensurepip venv zipapp.py lib2to3 tkinter turtledemo turtle.py curses dbm shelve.py sqlite3
    multiprocessing xml plistlib.py xmlrpc mailbox.py imaplib.py poplib.py smtplib.py ftplib.py webbrowser.py
    wave.py colorsys.py cProfile.py profile.py pstats.py trace.py tabnanny.py pyclbr.py modulefinder.py
    pickletools.py symtable.py sched.py fileinput.py filecmp.py this.py antigravity.py __hello__.py __phello__
    _aix_support.py _android_support.py _apple_support.py _ios_support.py _osx_support.py _distutils_system_mod.py
    site.py _sitebuiltins.py optparse.py configparser.py compileall.py py_compile.py statistics.py
    bz2.py lzma.py graphlib.py getopt.py pty.py nturl2path.py _markupbase.py sre_*.py
    """.split(),  # noqa: SIM905 - seventy names in eight lines, not in seventy
    # Frozen into the executable, which never looks at these.
    *(
        f"{name}.py"
        for name in "os posixpath genericpath ntpath codecs _collections_abc zipimport runpy stat abc io".split()  # noqa: SIM905 - likewise
    ),
    "site-packages",  # pip's, when it was built; the runtime gets its own
    "_pydecimal.py",  # these three stand in for modules in C that are here
    "_pydatetime.py",
    "_pyio.py",
)
PARTS_WITHOUT = {
    "asyncio": ("windows_*.py", "proactor_events.py", "__main__.py"),
    # What is left: Unicode's, ASCII, Latin, what zip files and host names use, and escapes.
    "encodings": (
        "big5*",
        "cp[!14]*",
        "cp1[!2]*",
        "cp1[0-9][0-9].py",
        "cp125[!2]*",
        "cp4[!3]*",
        "euc_*",
        "gb*",
        "hp_*",
        "hz*",
        "iso*[!15].py",
        "iso2022*",
        "iso8859_11.py",
        "johab*",
        "k*",
        "mac_*",
        "mbcs*",
        "oem*",
        "palmos*",
        "ptcp*",
        "quopri*",
        "rot_13*",
        "shift_jis*",
        "tis_*",
        "uu_*",
        "bz2_codec.py",
    ),
    "html": ("parser.py",),
    "importlib": ("_bootstrap*.py", "util.py", "machinery.py"),  # frozen into the executable
    "concurrent/futures": ("process.py",),  # needs multiprocessing
    "ctypes": ("macholib", "_aix.py", "wintypes.py"),
    "http": ("cookiejar.py",),
    "json": ("tool.py", "__main__.py"),
    "logging": ("config.py", "handlers.py"),
    "sysconfig": ("__main__.py",),
    "urllib": ("robotparser.py",),
    "wsgiref": ("validate.py",),
    "zoneinfo": ("_zoneinfo.py",),  # the C module is there
}

# Of the locked dependencies. Rich draws what commands print that are typed on a workstation (`platform`, `demo`), and
# brings Pygments: 8 MB together.
PACKAGES_WITHOUT = ("rich", "pygments", "markdown_it", "mdurl", "bin")
DEPENDENCY_FILES_WITHOUT = (
    "*.pyi", "*.pyx", "*.pxd", "*.pxi", "*.c", "*.h", "*.hash", "py.typed", "*/_testcapi*.so",
    "zstandard/_cffi*", "zstandard/backend_cffi.py", "multidict/_multidict_py.py",  # the C modules are there
    "aiohttp/_websocket/reader_c*.so", "aiohttp/_websocket/mask*.so",  # nothing here speaks WebSocket; Python's do
    "pydantic/v1", "pydantic/mypy.py", "aiohttp/test_utils.py", "aiohttp/pytest_plugin.py", "aiohttp/worker.py",
    "pydantic/color.py", "pydantic/experimental/pipeline.py", "annotated_types/test_cases.py", "yarl/_quoting_py.py",
    "prometheus_client/django", "prometheus_client/aiohttp", "prometheus_client/openmetrics/parser.py",
    "prometheus_client/parser.py", "prometheus_client/bridge/graphite.py",
    "idna/cli.py", "dotenv/cli.py", "obstore/auth", "obstore/fsspec.py", "grpclib/plugin", "grpclib/testing.py",
    "psutil/_psaix.py", "psutil/_psbsd.py", "psutil/_psosx.py", "psutil/_pssunos.py", "psutil/_pswindows.py",
    # The only thing that needs libstdc++ (2.4 MB, 1.4 MB of it resident); falls back to Python, and is used for a few
    # lists that are set up once.
    "frozenlist/_frozenlist*.so",
    "opengsq/cli.py", "opengsq/rcon_protocols", "opengsq/protocols/nadeo.py", "opengsq/responses/nadeo",
)  # fmt: skip
# Of the agent: what it does not import, but gives to an interpreter of its own.
DESCRIBED = ("api", "config", "lifecycle")
EXECUTED_BY_PATH = ("emulator/shim.py",)
METADATA_KEPT = ("METADATA", "sboms", "licenses", "LICEN[CS]E*", "COPYING*", "NOTICE*", "AUTHORS*")


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Tells whether a name fits one of the shell-style patterns."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def run(*command: str) -> str:
    """Runs a tool and returns what it printed on stdout; its failure is the build's."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def elf_files(top: Path) -> Iterator[Path]:
    """Yields every executable and shared library below a directory."""
    for path in sorted(top.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def copy_standard_library(source: Path, target: Path) -> None:
    """Copies the standard library of the interpreter's source less the lists above, and the facts about its build."""
    library = source / "Lib"

    def left_out(folder: str, names: list[str]) -> set[str]:
        where = Path(folder).relative_to(library)
        patterns = STANDARD_LIBRARY_WITHOUT if where == Path() else PARTS_WITHOUT.get(str(where), ())
        return {name for name in names if name == "__pycache__" or matches(name, patterns)}

    shutil.copytree(library, target, ignore=left_out)
    built = source / "build" / (source / "build/pybuilddir.txt").read_text(encoding="utf-8").strip()
    (facts,) = built.glob("_sysconfigdata_*.py")
    shutil.copy2(facts, target)


def copy_dependencies(source: Path, target: Path) -> None:
    """Copies what pip installed, without sources of extensions, type stubs and most of the metadata."""

    def left_out(folder: str, names: list[str]) -> set[str]:
        relative = Path(folder).relative_to(source)
        if relative.name.endswith(".dist-info"):
            return {name for name in names if not matches(name, METADATA_KEPT)}
        if relative == Path():
            return {name for name in names if matches(name, PACKAGES_WITHOUT)}
        return {
            name for name in names if name == "__pycache__" or matches(str(relative / name), DEPENDENCY_FILES_WITHOUT)
        }

    shutil.copytree(source, target, ignore=left_out)
    _fit_query_library(target / "opengsq/protocols")
    for package in PACKAGES_WITHOUT:
        for metadata in target.glob(f"{package.replace('_', '[-_]')}*.dist-info"):
            shutil.rmtree(metadata)
    for metadata in target.glob("*.dist-info/METADATA"):  # the long description is of no use here
        header, _, _ = metadata.read_text(encoding="utf-8").partition("\n\n")
        metadata.write_text(header + "\n", encoding="utf-8")


def _fit_query_library(protocols: Path) -> None:
    """Takes out of opengsq what the runtime has no modules for, since its package imports all protocols at once.

    The protocol nadeo needs XML. Source needs bzip2 for answers that only servers of 2006 compressed; such an answer is
    a failed count then.
    """
    package, source = protocols / "__init__.py", protocols / "source.py"
    lines = package.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if "nadeo" not in line.lower()]
    text = source.read_text(encoding="utf-8")
    if len(kept) != len(lines) - 2 or text.count("import bz2\n") != 1:
        raise SystemExit(f"cannot fit {protocols} to the runtime: it is not what it was")
    package.write_text("".join(kept), encoding="utf-8")
    source.write_text(text.replace("import bz2\n", "bz2 = None\n"), encoding="utf-8")


def compile_without_sources(top: Path, optimize: int, keep: tuple[str, ...] = ()) -> None:
    """Replaces every module by its bytecode.

    A tree without bytecode takes ten times as long to start, and a container's root may be read-only, so nothing can be
    compiled later. Sources beside the bytecode would cost a `stat` each and half a megabyte of the layer; tracebacks
    have file and line without them. The columns, which Python would underline in a source line, are left out too.

    Args:
        top: the tree.
        optimize: 0, or 2 to leave out docstrings and assertions too.
        keep: sources to leave there all the same, as paths below the tree.
    """
    os.environ["PYTHONNODEBUGRANGES"] = "1"  # for the processes that compile
    compiled = compileall.compile_dir(
        top,
        maxlevels=32,
        ddir=str(top),
        quiet=1,
        legacy=True,
        optimize=optimize,
        workers=0,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not compiled:
        raise SystemExit(f"cannot compile {top}; see above")
    for source in top.rglob("*.py"):
        if str(source.relative_to(top)) not in keep:
            source.unlink()


def loader_of(program: Path) -> Path:
    """Returns the dynamic loader that a program names in its ELF header."""
    for line in run("readelf", "--program-headers", "--wide", str(program)).splitlines():
        if "interpreter:" in line:
            return Path(line.split("interpreter:")[1].strip(" ]\n"))
    raise SystemExit(f"cannot find the dynamic loader of {program}")


def build_programs(home: Path, source: Path, loader: str) -> None:
    """Compiles the static launcher and the interpreter's main program, and makes `python` a name of the launcher."""
    strict = [
        "-O2",
        "-fno-asynchronous-unwind-tables",
        "-Wall",
        "-Wextra",
        "-Werror",
        f'-DRUNTIME_HOME="{home}"',
        f'-DLOADER="{loader}"',
        f'-DSTDLIB="{PYTHON}"',
    ]
    (home / "bin").mkdir(parents=True)
    (home / "libexec").mkdir()
    run("musl-gcc", "-static", "-s", *strict, str(HERE / "launcher.c"), "-o", str(home / "bin/arbitrium-agent"))
    (home / "bin/python").symlink_to("arbitrium-agent")
    # The executable is linked once more, by its own rules, with this main program in place of CPython's.
    build = source / "build"
    main = build / "Programs/python.o"
    run("gcc", "-fno-pie", *strict, f"-I{build}", f"-I{source}/Include", "-c", str(HERE / "main.c"), "-o", str(main))
    # RPATH, not RUNPATH: it holds for the libraries of extension modules too, and comes before LD_LIBRARY_PATH.
    options = f"-Wl,--no-eh-frame-hdr,--disable-new-dtags,-rpath,$ORIGIN/../lib,--dynamic-linker={home}/lib/{loader}"
    subprocess.run(["sh", "link"], cwd=build, env={**os.environ, "OPTIONS": options}, check=True)
    shutil.copy2(build / "python", home / "libexec/arbitrium-agent")
    run("strip", str(home / "libexec/arbitrium-agent"))


def copy_libraries(home: Path, loader: Path) -> list[Path]:
    """Copies the loader and every shared library that something in the directory needs; returns where from."""
    taken = {loader.resolve()}
    shutil.copy2(loader, home / "lib" / loader.name)
    for program in [*elf_files(home / "libexec"), *elf_files(home / "lib" / PYTHON)]:
        # The build's own loader resolves the names; it is the one that is copied.
        listed = subprocess.run(["ldd", str(program)], check=False, capture_output=True, text=True).stdout
        for line in listed.splitlines():
            name, arrow, found = line.strip().partition(" => ")
            if not arrow:
                continue
            if "not found" in found:
                raise SystemExit(f"cannot find {name}, which {program} needs")
            library = Path(found.split(" (")[0])
            if home not in library.parents and not (home / "lib" / name).exists():
                shutil.copy2(library.resolve(), home / "lib" / name)
                taken.add(library.resolve())
    return sorted(taken)


def copy_certificates(target: Path) -> None:
    """Copies Debian's CA certificates as a directory in which OpenSSL finds one by its name (`openssl rehash`)."""
    target.mkdir()
    for link in sorted(Path("/etc/ssl/certs").glob("????????.[0-9]")):
        shutil.copy(link, target / link.name)
    if not any(target.iterdir()):
        raise SystemExit("cannot find CA certificates; is the package ca-certificates installed?")


def main() -> None:
    """Assembles the directory named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="the directory to make")
    parser.add_argument("--source", type=Path, required=True, help="source of the interpreter, built in build/")
    parser.add_argument("--dependencies", type=Path, required=True, help="what pip installed with --target")
    parser.add_argument("--agent", type=Path, required=True, help="the package directory of the agent")
    parser.add_argument("--origins", type=Path, required=True, help="file to write the copied libraries' paths to")
    args = parser.parse_args()
    home: Path = args.home
    library = home / "lib" / PYTHON
    packages = library / "site-packages"
    copy_standard_library(args.source.resolve(), library)
    copy_dependencies(args.dependencies, packages)
    for extension in elf_files(library):
        run("strip", "--strip-unneeded", str(extension))
    compile_without_sources(library, optimize=2)
    shutil.copytree(args.agent, packages / "agent", ignore=shutil.ignore_patterns("__pycache__", "py.typed"))
    # Docstrings are the descriptions in /openapi.json, in the rooms that it is made of.
    for folder in DESCRIBED:
        compile_without_sources(packages / "agent" / folder, optimize=0)
    compile_without_sources(packages / "agent", optimize=2, keep=EXECUTED_BY_PATH)
    loader = loader_of(Path(sys.executable).resolve())
    build_programs(home, args.source.resolve(), loader.name)
    origins = copy_libraries(home, loader)
    (home / "share").mkdir()
    (home / "share/machine").write_text(os.uname().machine + "\n", encoding="utf-8")  # entrypoint.sh compares it
    copy_certificates(home / "share/certs")
    args.origins.write_text("\n".join(map(str, origins)) + "\n", encoding="utf-8")
    for folder, _, _ in os.walk(home, topdown=False):
        if not any(Path(folder).iterdir()):
            Path(folder).rmdir()


if __name__ == "__main__":
    main()
