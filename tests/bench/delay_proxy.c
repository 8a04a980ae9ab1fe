/* delay_proxy PORT TARGET_PORT DELAY_MS COUNTS: passes connections on loopback through to another
 * port, and holds back the first bytes of each answer for DELAY_MS, as a far store's do. Bytes go
 * from socket to socket through a pipe, without a copy. COUNTS is a file of two 64-bit numbers,
 * kept up to date: bytes that clients sent, bytes that they got.
 *
 * threads: two for each connection, one a direction.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define PIPE_BYTES (1 << 20)

struct pair {
    int client, server;
    atomic_bool asked; /* the client has sent something since the last answer began */
    atomic_uint ends;
};

static _Atomic uint64_t *counts;
static struct sockaddr_in target = {.sin_family = AF_INET};
static unsigned delay_ms;

static void pair_unref(struct pair *pair)
{
    if (atomic_fetch_add(&pair->ends, 1) == 0)
        return;
    close(pair->client);
    close(pair->server);
    free(pair);
}

/* Up to one pipe full. */
static bool pass(int from, int to, const int *pipes, _Atomic uint64_t *count)
{
    ssize_t left = splice(from, NULL, pipes[1], NULL, PIPE_BYTES, SPLICE_F_MOVE);

    if (left < 0 && errno == EINTR)
        return true;
    if (left <= 0)
        return false;
    atomic_fetch_add(count, (uint64_t)left);
    while (left > 0) {
        ssize_t done = splice(pipes[0], NULL, to, NULL, (size_t)left, SPLICE_F_MOVE);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        left -= done;
    }
    return true;
}

static bool await(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    return poll(&wait, 1, -1) > 0 || errno == EINTR;
}

static void *run(struct pair *pair, bool answers)
{
    int from = answers ? pair->server : pair->client, to = answers ? pair->client : pair->server;
    int pipes[2];

    if (pipe2(pipes, O_CLOEXEC) == 0) {
        fcntl(pipes[1], F_SETPIPE_SZ, PIPE_BYTES);
        while (await(from)) {
            if (!answers)
                atomic_store(&pair->asked, true);
            else if (atomic_exchange(&pair->asked, false))
                usleep(delay_ms * 1000);
            if (!pass(from, to, pipes, &counts[answers]))
                break;
        }
        close(pipes[0]);
        close(pipes[1]);
    }
    shutdown(pair->client, SHUT_RDWR);
    shutdown(pair->server, SHUT_RDWR);
    pair_unref(pair);
    return NULL;
}

static void *requests_main(void *user)
{
    return run(user, false);
}

static void *answers_main(void *user)
{
    return run(user, true);
}

static void start(int client)
{
    struct pair *pair = calloc(1, sizeof(*pair));
    int on = 1, server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pthread_t one, other;

    if (!pair || connect(server, (struct sockaddr *)&target, sizeof(target)) != 0) {
        close(client);
        close(server);
        free(pair);
        return;
    }
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    pair->client = client;
    pair->server = server;
    if (pthread_create(&one, NULL, requests_main, pair) != 0 ||
        pthread_create(&other, NULL, answers_main, pair) != 0)
        abort();
    pthread_detach(one);
    pthread_detach(other);
}

static bool map_counts(const char *path)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (fd < 0 || ftruncate(fd, 2 * sizeof(*counts)) != 0)
        return false;
    counts = mmap(NULL, 2 * sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return counts != MAP_FAILED;
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

    if (argc != 5) {
        fprintf(stderr, "usage: delay_proxy PORT TARGET_PORT DELAY_MS COUNTS\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    address.sin_addr.s_addr = target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    target.sin_port = htons((uint16_t)atoi(argv[2]));
    delay_ms = (unsigned)atoi(argv[3]);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (!map_counts(argv[4]) || bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(listener, 512) != 0) {
        fprintf(stderr, "delay_proxy: %s\n", strerror(errno));
        return 1;
    }
    for (;;) {
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

        if (client >= 0)
            start(client);
    }
}
