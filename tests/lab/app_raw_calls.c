/* A static program that makes its own system calls: no library stands between it and the kernel.
 *
 *     raw_calls ADDRESS PORT DATAGRAM-ADDRESS
 *
 * Asks a web server over TCP and prints the answer; then tries what is no TCP and prints, for each,
 * its name and the error's number (0: it was sent).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static long open_socket(int family, int type, int protocol) {
    return syscall(SYS_socket, family, type, protocol);
}

static struct sockaddr_in to(const char *address, int port) {
    struct sockaddr_in found = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, address, &found.sin_addr);
    return found;
}

static void tell(const char *name, long result) {
    printf("%s %d\n", name, result < 0 ? errno : 0);
}

static long sent(int family, int type, int protocol, struct sockaddr_in *where) {
    long sock = open_socket(family, type, protocol);
    if (sock < 0)
        return sock;
    return syscall(SYS_sendto, sock, "raw system call", 15, 0, where, sizeof *where);
}

int main(int count, char **words) {
    if (count != 4)
        return 2;
    struct sockaddr_in web = to(words[1], atoi(words[2])), datagram = to(words[3], 443);
    long sock = open_socket(AF_INET, SOCK_STREAM, 0);
    if (syscall(SYS_connect, sock, &web, sizeof web) < 0)
        return 3;
    const char *request = "GET / HTTP/1.0\r\n\r\n";
    syscall(SYS_write, sock, request, strlen(request));
    char answer[4096];
    long size, whole = 0;
    while ((size = syscall(SYS_read, sock, answer + whole, sizeof answer - 1 - whole)) > 0)
        whole += size;
    answer[whole] = 0;
    char *body = strstr(answer, "\r\n\r\n");
    printf("%s", body ? body + 4 : answer);
    tell("udp", sent(AF_INET, SOCK_DGRAM, 0, &datagram));
    tell("udplite", sent(AF_INET, SOCK_DGRAM, 136, &datagram));
    tell("icmp", sent(AF_INET, SOCK_DGRAM, 1, &datagram));
    tell("raw", sent(AF_INET, SOCK_RAW, 253, &datagram));
    tell("packet", open_socket(17 /* AF_PACKET */, SOCK_RAW, 0x0300));
    tell("vsock", open_socket(40 /* AF_VSOCK */, SOCK_STREAM, 0));
    tell("io_uring", syscall(425, 1, 0));
    tell("keyring", syscall(SYS_request_key, "dns_resolver", "canary.example.test", "", -3));
    return 0;
}
