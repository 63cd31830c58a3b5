/* The limit of the machine: a WebSocket server that does nothing.
 *
 * Answers the upgrade, then reads, unmasks and writes back, with one epoll_wait for many sockets and one read and one
 * write for each. It looks at nothing: no checks, no limits, no frames above 125 bytes or cut in two, no timers.
 * Nothing that speaks WebSocket over these system calls can be cheaper by more than the unmasking.
 *
 * PORT=0 ./echo; prints `listening PORT VERSION`.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 1024, BUFFER_BYTES = 64 * 1024, BACKLOG = 4096 };

static unsigned char buffer[BUFFER_BYTES + 1];

static uint32_t rotated(uint32_t word, int by) { return word << by | word >> (32 - by); }

/* SHA-1 of up to 119 bytes (FIPS 180-4), which the accept key of RFC 6455 section 4.2.2 wants. */
static void sha1(const unsigned char *bytes, size_t count, unsigned char digest[20]) {
  uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
  unsigned char padded[128] = {0};
  size_t length = count < 56 ? 64 : 128;
  memcpy(padded, bytes, count);
  padded[count] = 0x80;
  padded[length - 2] = (unsigned char)(count * 8 >> 8);
  padded[length - 1] = (unsigned char)(count * 8);
  for (size_t block = 0; block < length; block += 64) {
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++) {
      const unsigned char *four = padded + block + 4 * i;
      w[i] = (uint32_t)four[0] << 24 | (uint32_t)four[1] << 16 | (uint32_t)four[2] << 8 | four[3];
    }
    for (int i = 16; i < 80; i++) w[i] = rotated(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
      uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
      uint32_t k = i < 20 ? 0x5a827999 : i < 40 ? 0x6ed9eba1 : i < 60 ? 0x8f1bbcdc : 0xca62c1d6;
      uint32_t next = rotated(a, 5) + f + e + k + w[i];
      e = d; d = c; c = rotated(b, 30); b = a; a = next;
    }
    h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e;
  }
  for (int i = 0; i < 20; i++) digest[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
}

static void base64(const unsigned char digest[20], char text[29]) {
  static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int i = 0; i < 7; i++) {
    uint32_t three = (uint32_t)digest[3 * i] << 16 | (uint32_t)digest[3 * i + 1] << 8 | (i < 6 ? digest[3 * i + 2] : 0);
    for (int j = 0; j < 4; j++) text[4 * i + j] = letters[three >> (18 - 6 * j) & 63];
  }
  text[27] = '=';
  text[28] = 0;
}

/* Answers the request in the buffer. */
static void upgrade(int client) {
  static const char name[] = "\r\nSec-WebSocket-Key: ", salt[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  unsigned char salted[24 + sizeof salt], digest[20];
  char accept[29], answer[256];
  const char *key = strcasestr((char *)buffer, name);
  if (!key || strlen(key) < sizeof name - 1 + 24) return;
  memcpy(salted, key + sizeof name - 1, 24);
  memcpy(salted + 24, salt, sizeof salt - 1);
  sha1(salted, 24 + sizeof salt - 1, digest);
  base64(digest, accept);
  int count = snprintf(answer, sizeof answer,
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", accept);
  if (write(client, answer, (size_t)count) < 0) return; /* it has gone: its end will be read */
}

/* Makes a server's frames of a client's, in place; their length. */
static size_t unmask(unsigned char *frames, size_t count) {
  size_t from = 0, to = 0;
  while (from + 6 <= count) {
    size_t length = frames[from + 1] & 0x7f;
    unsigned char mask[4];
    memcpy(mask, frames + from + 2, 4);
    frames[to] = frames[from];
    frames[to + 1] = (unsigned char)length;
    for (size_t i = 0; i < length; i++) frames[to + 2 + i] = frames[from + 6 + i] ^ mask[i & 3];
    from += 6 + length;
    to += 2 + length;
  }
  return to;
}

static void serve(int client) {
  ssize_t count = read(client, buffer, BUFFER_BYTES);
  if (count <= 0) {
    if (count == 0 || errno != EAGAIN) close(client);
  } else if (buffer[0] == 'G') {
    buffer[count] = 0;
    upgrade(client);
  } else if (write(client, buffer, unmask(buffer, (size_t)count)) < 0) {
    close(client);
  }
}

static void accept_all(int poll, int listener) {
  int client, one = 1;
  while ((client = accept4(listener, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = client};
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    epoll_ctl(poll, EPOLL_CTL_ADD, client, &event);
  }
}

static int must(int outcome, const char *what) {
  if (outcome < 0) {
    perror(what);
    exit(1);
  }
  return outcome;
}

int main(void) {
  const char *port = getenv("PORT");
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof address;
  struct rlimit files;
  int one = 1, listener = must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), "socket");
  int poll = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  struct epoll_event events[EVENTS_MAX] = {{.events = EPOLLIN, .data.fd = listener}};

  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  address.sin_port = htons((uint16_t)(port ? atoi(port) : 0));
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  must(bind(listener, (struct sockaddr *)&address, sizeof address), "bind");
  must(listen(listener, BACKLOG), "listen");
  must(getsockname(listener, (struct sockaddr *)&address, &length), "getsockname");
  must(epoll_ctl(poll, EPOLL_CTL_ADD, listener, &events[0]), "epoll_ctl");
  printf("listening %d epoll, C\n", ntohs(address.sin_port));
  fflush(stdout);
  for (;;) {
    int count = epoll_wait(poll, events, EVENTS_MAX, -1);
    for (int i = 0; i < count; i++) {
      if (events[i].data.fd == listener) accept_all(poll, listener);
      else serve(events[i].data.fd);
    }
  }
}
