/* Exact moments, for benchmarks: CLOCK_MONOTONIC in nanoseconds, appended to a file with one write.
 *
 *   stamp launch FILE COMMAND...   write "exec NS", then become the command
 *   stamp exit FILE                write "started NS", then end
 *   stamp wait FILE [CHILDREN]     write "started NS", fork that many children that do nothing, and wait for SIGTERM:
 *                                  write "term NS" and end
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int out;

static void stamp(const char *word)
{
    struct timespec now;
    char line[64];
    clock_gettime(CLOCK_MONOTONIC, &now);
    int length = snprintf(line, sizeof line, "%s %lld\n", word, now.tv_sec * 1000000000LL + now.tv_nsec);
    if (write(out, line, length) != length)
        _exit(3);
}

static void on_term(int number)
{
    (void)number;
    stamp("term");
    _exit(0);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    out = open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (out < 0)
        return 3;
    if (strcmp(argv[1], "launch") == 0 && argc > 3) {
        stamp("exec");
        execvp(argv[3], argv + 3);
        return 127;
    }
    if (strcmp(argv[1], "wait") == 0) {
        signal(SIGTERM, on_term);
        for (int children = argc > 3 ? atoi(argv[3]) : 0; children > 0; children--)
            if (fork() == 0) {
                signal(SIGTERM, SIG_DFL);
                for (;;)
                    pause();
            }
        stamp("started");
        for (;;)
            pause();
    }
    stamp("started");
    return 0;
}
