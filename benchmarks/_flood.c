/* A game that writes a log: flood RESULT BYTES BYTES_A_SECOND BYTES_A_WRITE

   Writes lines as games write them to stdout, as fast as it can (0 bytes a second) or at a rate, and puts into RESULT,
   one a line: bytes written, seconds, and how long the writes took (p50, p99.9, worst, in microseconds). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    static const char *words[] = {"player", "joined", "LogNet:", "Warning", "tick", "took", "ms", "at", "position",
                                  "spawned", "the", "match", "begins", "in", "UWorld::Tick", "actor", "connection"};
    if (argc != 5) return 2;
    uint64_t total = strtoull(argv[2], NULL, 10), rate = strtoull(argv[3], NULL, 10);
    size_t size = strtoull(argv[4], NULL, 10), length = 8u << 20, used = 0, count = 0, most = total / size + 2;
    char *text = malloc(length + size + 256);
    uint32_t *took = malloc(most * sizeof *took);
    srandom(1);
    while (used < length + size) {
        used += sprintf(text + used, "[2025.11.24-08.12.%02ld:%03ld]", random() % 60, random() % 1000);
        for (int i = 0; i < 8; i++) used += sprintf(text + used, " %s", words[random() % 17]);
        used += sprintf(text + used, " id=%08lx%08lx\n", random(), random());
    }
    uint64_t began = now(), sent = 0, at = 0;
    while (sent < total) {
        if (rate) {
            uint64_t due = began + sent * 1000000000u / rate, moment = now();
            if (moment < due) {
                struct timespec pause = {(due - moment) / 1000000000u, (due - moment) % 1000000000u};
                nanosleep(&pause, NULL);
            }
        }
        uint64_t before = now();
        for (size_t done = 0; done < size;) {
            ssize_t n = write(1, text + at + done, size - done);
            if (n < 0) return 1;
            done += n;
        }
        uint64_t after = now() - before;
        took[count++] = after > UINT32_MAX ? UINT32_MAX : after;
        sent += size;
        at = (at + size) % length;
    }
    double seconds = (now() - began) / 1e9;
    qsort(took, count, sizeof *took, compare);
    FILE *result = fopen(argv[1], "w");
    if (!result) return 1;
    fprintf(result, "%llu\n%f\n%f\n%f\n%f\n", (unsigned long long)sent, seconds, took[count / 2] / 1e3,
            took[(size_t)(count * 0.999)] / 1e3, took[count - 1] / 1e3);
    return fclose(result) != 0;
}
