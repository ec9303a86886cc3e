/* libexec/arbitrium-agent: the interpreter, with everything that could come in from a game's image shut out.
 *
 * Python is configured from here and from nowhere else: no PYTHON* variable, no user's site-packages, no pyvenv.cfg, no
 * locale. UTF-8 is always on; a C locale is not "coerced" either, since that would put LC_CTYPE into the game's
 * environment. If Python cannot be initialised, the game is executed without the agent.
 */
#include <Python.h>
#include <dirent.h>
#include <stdlib.h>

#include "runtime.h"

extern char **environ;

/* Python imports this and passes on what it returns. Not `-m`: runpy would cost a few milliseconds. */
#define START L"from agent.__main__ import main\nraise SystemExit(main())"

/* Where certificates are in the images of the usual distributions: a directory of files named by their hash (Debian,
 * Ubuntu, SUSE, Alpine), or one file with all of them. */
static const char directory[] = "/etc/ssl/certs";
static const char *const bundles[] = {
    "/etc/ssl/certs/ca-certificates.crt", /* distroless, Alpine's ca-certificates-bundle */
    "/etc/pki/tls/certs/ca-bundle.crt",   /* Fedora, RHEL */
    "/etc/ssl/cert.pem",                  /* Alpine's base */
};

/* Gives the LD_* variables their names back, in place: from here on the environment is the one the user wrote. */
static void restore_loader_variables(void) {
    for (char **variable = environ; *variable; variable++)
        if (strncmp(*variable, KEPT_PREFIX, sizeof KEPT_PREFIX - 1) == 0) *variable += sizeof KEPT_PREFIX - 1;
}

/* Whether a directory has a name such as 0a1b2c3d.0 in it. */
static int has_hashed_certificates(const char *path) {
    DIR *folder = opendir(path);
    if (!folder) return 0;
    int found = 0;
    for (struct dirent *entry; !found && (entry = readdir(folder));)
        found = strspn(entry->d_name, "0123456789abcdef") == 8 && strcmp(entry->d_name + 8, ".0") == 0;
    closedir(folder);
    return found;
}

/* OpenSSL and rustls find the certificates through the C environment. Set only after Python has copied that into
 * os.environ, so that the game, which gets its variables from os.environ, never sees it.
 *
 * A directory rather than a file where there is a choice: aiohttp makes its TLS contexts when it is imported, and would
 * read all 140 certificates of a file there, for 1.7 MB and 15 ms; from a directory the one that is needed is read. */
static void offer_certificates(void) {
    if (getenv("SSL_CERT_FILE") || getenv("SSL_CERT_DIR")) return;
    if (!has_hashed_certificates(directory))
        for (size_t i = 0; i < sizeof bundles / sizeof *bundles; i++)
            if (access(bundles[i], R_OK) == 0) {
                setenv("SSL_CERT_FILE", bundles[i], 1);
                return;
            }
    char own[PATH_MAX + 64];
    snprintf(own, sizeof own, "%s/share/certs", home);
    setenv("SSL_CERT_DIR", has_hashed_certificates(directory) ? directory : own, 1);
    setenv("SSL_CERT_FILE", "/dev/null", 1); /* or the default one would be read as well */
}

static PyStatus set_path(PyConfig *config, wchar_t **field, const char *name) {
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s%s", home, name);
    return PyConfig_SetBytesString(config, field, path);
}

static PyStatus add_search_path(PyConfig *config, const char *name) {
    wchar_t *path = NULL;
    PyStatus status = set_path(config, &path, name);
    if (!PyStatus_Exception(status)) status = PyWideStringList_Append(&config->module_search_paths, path);
    PyMem_RawFree(path);
    return status;
}

static PyStatus initialise(int argc, char **argv, int as_python) {
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1;
    PyStatus status = Py_PreInitialize(&before);
    if (PyStatus_Exception(status)) return status;

    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.write_bytecode = 0;
    config.install_signal_handlers = 1; /* as every other Python has it: SIGPIPE ignored, SIGINT raises */
    config.pathconfig_warnings = 0;
    config.module_search_paths_set = 1;
    config.parse_argv = as_python;
    /* `python FILE` and `python -m NAME` find what lies beside them; the environment stays shut out. */
    config.isolated = config.safe_path = !as_python;
#define TRY(call) do { status = (call); if (PyStatus_Exception(status)) goto done; } while (0)
    TRY(PyConfig_SetBytesArgv(&config, argc, argv));
    TRY(set_path(&config, &config.executable, "/bin/python"));
    TRY(set_path(&config, &config.prefix, ""));
    TRY(set_path(&config, &config.exec_prefix, ""));
    TRY(set_path(&config, &config.base_prefix, ""));
    TRY(set_path(&config, &config.base_exec_prefix, ""));
    TRY(add_search_path(&config, "/lib/" STDLIB));
    TRY(add_search_path(&config, "/lib/" STDLIB "/site-packages"));
    if (!as_python) TRY(PyConfig_SetString(&config, &config.run_command, START));
    TRY(Py_InitializeFromConfig(&config));
#undef TRY
done:
    PyConfig_Clear(&config);
    return status;
}

int main(int argc, char **argv) {
    find_home();
    restore_loader_variables();
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *name = slash ? slash + 1 : argc > 0 ? argv[0] : "";
    int as_python = strncmp(name, "python", 6) == 0;
    PyStatus status = initialise(argc, argv, as_python);
    if (PyStatus_IsExit(status)) return status.exitcode;
    if (PyStatus_Exception(status)) {
        fprintf(stderr, "arbitrium-agent: cannot initialise the interpreter in %s: %s\n", home, status.err_msg);
        return run_without_agent(argc, argv);
    }
    offer_certificates();
    return Py_RunMain();
}
