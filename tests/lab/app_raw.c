/* A static program that asks the kernel itself: nothing that is preloaded sees what it does.
 *
 *     app_raw ADDRESS PORT     connects, asks for /, prints the last line of the answer,
 *                              then the error of a datagram to the same port, or "sent"
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int count, char **words)
{
    static const char ask[] = "GET / HTTP/1.0\r\nHost: raw\r\n\r\n";
    char answer[4096];
    size_t length = 0;
    ssize_t got;
    struct sockaddr_in there = {.sin_family = AF_INET};

    if (count != 3 || inet_pton(AF_INET, words[1], &there.sin_addr) != 1)
        return 2;
    there.sin_port = htons((unsigned short)atoi(words[2]));
    long stream = syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
    if (syscall(SYS_connect, stream, &there, sizeof there) != 0) {
        printf("connect: %s\n", strerror(errno));
        return 1;
    }
    syscall(SYS_write, stream, ask, sizeof ask - 1);
    while ((got = syscall(SYS_read, stream, answer + length, sizeof answer - 1 - length)) > 0)
        length += (size_t)got;
    answer[length] = 0;
    char *body = strstr(answer, "\r\n\r\n");
    printf("%s\n", body ? body + 4 : "no answer");
    long datagram = syscall(SYS_socket, AF_INET, SOCK_DGRAM, 0);
    long sent = syscall(SYS_sendto, datagram, "x", 1L, 0L, &there, sizeof there);
    printf("%s\n", sent < 0 ? strerror(errno) : "sent");
    return 0;
}
