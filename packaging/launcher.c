/* bin/arbitrium-agent: the first thing that runs in a game's container.
 *
 * A static executable, because a game image may have no libc, an older one, or another one. It
 *   1. finds the runtime directory it stands in;
 *   2. sets every LD_* variable aside: they are meant for the game, and a preloaded allocator or a directory of the
 *      game's libraries must not end up in the agent's process. main.c puts them back before Python reads the
 *      environment, so that the game gets them unchanged;
 *   3. holds stop signals back for the agent, and sends itself the one that entrypoint.sh got before;
 *   4. executes libexec/arbitrium-agent, whose ELF header names the runtime's own dynamic loader. Where the directory
 *      was copied to another place than it was built for, that loader is called by its path instead;
 *   5. fails open: if nothing of this works, `run -- COMMAND` executes the game itself and says so.
 *
 * A copy of this file in a directory of PATH finds the runtime in its usual place, so that one line of a Dockerfile puts
 * `arbitrium-agent` on PATH in any image, also in one without a shell.
 *
 * Called as `python` (a symbolic link) it starts the runtime's interpreter instead of the agent.
 * `--check-runtime` answers with its exit code whether the runtime is complete; entrypoint.sh asks it.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime.h"

extern char **environ;

static const char *inside(const char *name) {
    static char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", home, name);
    return path;
}

/* The environment for the agent: LD_X=value becomes KEPT_PREFIX LD_X=value. NULL if there is no memory for it. */
static char **without_loader_variables(void) {
    size_t count = 0;
    while (environ[count]) count++;
    char **changed = calloc(count + 1, sizeof *changed);
    for (size_t i = 0; changed && i < count; i++) {
        changed[i] = environ[i];
        if (strncmp(environ[i], "LD_", 3) != 0) continue;
        size_t size = sizeof KEPT_PREFIX + strlen(environ[i]);
        changed[i] = malloc(size);
        if (!changed[i]) return NULL;
        snprintf(changed[i], size, "%s%s", KEPT_PREFIX, environ[i]);
    }
    return changed;
}

/* What is missing of the runtime, or NULL. */
static const char *missing(void) {
    static const char *const needed[] = {"lib/" LOADER, "lib/libc.so.6", "lib/" STDLIB "/encodings",
                                         "lib/" STDLIB "/site-packages/agent"};
    if (access(inside("libexec/arbitrium-agent"), X_OK) != 0) return "libexec/arbitrium-agent";
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (access(inside(needed[i]), R_OK) != 0) return needed[i];
    return NULL;
}

/* The stop signal that entrypoint.sh got before this program ran, or 0; forgotten, since the game must not find it. */
static int kept_stop(void) {
    const char *name = getenv(STOP_VARIABLE);
    int number = !name ? 0 : strcmp(name, "INT") == 0 ? SIGINT : SIGTERM;
    unsetenv(STOP_VARIABLE);
    return number;
}

static void start_agent(int argc, char **argv) {
    char **environment = without_loader_variables();
    if (!environment) return;
    char agent[PATH_MAX];
    snprintf(agent, sizeof agent, "%s", inside("libexec/arbitrium-agent"));
    if (strcmp(home, RUNTIME_HOME) == 0) {
        execve(agent, argv, environment);
        return;
    }
    char **through_loader = calloc((size_t)argc + 4, sizeof *through_loader);
    if (!through_loader) return;
    through_loader[0] = (char *)LOADER;
    through_loader[1] = "--argv0";
    through_loader[2] = argv[0];
    through_loader[3] = agent;
    memcpy(through_loader + 4, argv + 1, (size_t)argc * sizeof *argv); /* with the NULL at the end */
    execve(inside("lib/" LOADER), through_loader, environment);
}

int main(int argc, char **argv) {
    find_home();
    if (argc < 1) return 78;
    const char *reason = missing();
    if (reason && strcmp(home, RUNTIME_HOME) != 0) {
        /* This program alone was copied, to a directory of PATH: the runtime is in its usual place then. */
        strcpy(home, RUNTIME_HOME);
        reason = missing();
    }
    int check_only = argc == 2 && strcmp(argv[1], "--check-runtime") == 0;
    if (check_only && !reason) return 0;
    if (!reason) {
        /* A stop signal is held back until the agent has handlers: the kernel drops it for a PID 1 without any. Only
         * `run` lets it in again; every other program would be deaf. */
        sigset_t stop, before;
        int kept = kept_stop();
        const char *slash = strrchr(argv[0], '/');
        sigemptyset(&stop);
        if (argc > 1 && strcmp(argv[1], "run") == 0 && strcmp(slash ? slash + 1 : argv[0], "arbitrium-agent") == 0) {
            sigaddset(&stop, SIGTERM);
            sigaddset(&stop, SIGINT);
        }
        sigprocmask(SIG_BLOCK, &stop, &before);
        if (kept && sigismember(&stop, kept)) kill(getpid(), kept);
        start_agent(argc, argv);
        sigprocmask(SIG_SETMASK, &before, NULL);
        reason = strerror(errno);
        fprintf(stderr, "arbitrium-agent: cannot start the runtime in %s: %s\n", home, reason);
    } else {
        fprintf(stderr, "arbitrium-agent: cannot start the runtime in %s: %s is missing or not readable; copy the whole "
                        "directory into the image\n", home, reason);
    }
    if (check_only) return 1;
    return run_without_agent(argc, argv);
}
