/* What the launcher and the interpreter's main program agree on. */
#ifndef ARBITRIUM_RUNTIME_H
#define ARBITRIUM_RUNTIME_H

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* RUNTIME_HOME "/opt/arbitrium-agent", LOADER "ld-linux-x86-64.so.2" and STDLIB "python3.13" come from the compiler's
 * command line (packaging/assemble.py), which reads them off the interpreter that is built in. */

/* In front of the names of the LD_* variables while the dynamic loader runs. Not AGENT_: those are settings. */
#define KEPT_PREFIX "_ARBITRIUM_KEPT_"

/* How entrypoint.sh says that it got a stop signal: TERM or INT. */
#define STOP_VARIABLE "_ARBITRIUM_STOP"

static char home[PATH_MAX - 256]; /* the runtime directory; leaves room for the names below it */

/* The directory two levels above the running program, whatever link was followed to get there: bin/arbitrium-agent,
 * libexec/arbitrium-agent or, in a copied directory, lib/<loader>. Where /proc is missing, the usual place. */
static void find_home(void) {
    ssize_t length = readlink("/proc/self/exe", home, sizeof home - 1);
    for (int i = 0; length > 0 && i < 2; i++) {
        while (length > 0 && home[length - 1] != '/') length--;
        if (length > 0) length--;
    }
    if (length > 0) home[length] = '\0';
    else strcpy(home, RUNTIME_HOME);
}

/* Fail open: a game server without its agent is better than none. Only `run ... -- COMMAND` has a game to execute.
 * Returns the exit code for when that is impossible too. */
static int run_without_agent(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "run") != 0) return 78;
    int command = 2;
    while (command < argc && strcmp(argv[command], "--") != 0) command++;
    if (command + 1 >= argc) return 78;
    fprintf(stderr, "arbitrium-agent: the game runs without the agent: no API, no metrics, no graceful stop\n");
    execvp(argv[command + 1], argv + command + 1);
    int missing = errno == ENOENT || errno == ENOTDIR;
    fprintf(stderr, "arbitrium-agent: cannot execute %s: %s\n", argv[command + 1], strerror(errno));
    return missing ? 127 : 126;
}

#endif
