/* The limit of the machine for MQTT: a forwarder that checks and keeps nothing.
 *
 * One epoll_wait for many sockets, one read for each that is readable, and after all of them one write for each
 * connection that has output. QoS 0 and 1, versions 3.1.1 and 5 of the clients of the load generator: a topic or filter
 * is the number after the first "c" that a digit follows, so an exact filter and `+/c00007/#` cost the same; a filter
 * without such a number gets everything. A delivery with QoS 1 gets a packet identifier, whose PUBACK is not looked at.
 * No sessions, no wildcards, no limits, no timers.
 *
 * PORT=0 ./forward; prints `listening PORT VERSION`.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS_MAX = 1024, BUFFER_BYTES = 64 * 1024, BACKLOG = 4096, CONNECTIONS_MAX = 1 << 20, TOPICS_MAX = 100000 };

/* The bytes of one connection that wait: of an incomplete packet, or to be written. */
struct bytes {
  unsigned char *at;
  uint32_t length, size;
};

struct connection {
  struct bytes input, output;
  uint16_t last_id;
  char is_open, has_output, waits_for_room, level;
  /* 1 + the number of the topic that it subscribes to; TOPICS_MAX + 1 for all. */
  int topic;
};

struct subscribers {
  int *fds, count, size;
};

static unsigned char buffer[BUFFER_BYTES];
static struct connection connections[CONNECTIONS_MAX];
static struct subscribers topics[TOPICS_MAX + 1];
/* Connections with output in this turn. */
static int to_write[CONNECTIONS_MAX], to_write_count;
/* Freed buffers of 4 KiB are used again. */
enum { SPARE_BYTES = 4096, SPARE_MAX = 4096 };
static unsigned char *spare[SPARE_MAX];
static int spare_count, poll;

static void append(struct bytes *to, const unsigned char *bytes, uint32_t count) {
  if (to->length + count > to->size) {
    if (!to->at && count <= SPARE_BYTES) {
      to->at = spare_count ? spare[--spare_count] : malloc(SPARE_BYTES);
      to->size = SPARE_BYTES;
    } else {
      to->size = 2 * (to->length + count);
      to->at = realloc(to->at, to->size);
    }
    if (!to->at) abort();
  }
  memcpy(to->at + to->length, bytes, count);
  to->length += count;
}

static void release(struct bytes *bytes) {
  if (bytes->size == SPARE_BYTES && spare_count < SPARE_MAX) spare[spare_count++] = bytes->at;
  else free(bytes->at);
  *bytes = (struct bytes){0};
}

static struct bytes *output_of(int fd) {
  struct connection *connection = &connections[fd];
  if (!connection->has_output) {
    connection->has_output = 1;
    to_write[to_write_count++] = fd;
  }
  return &connection->output;
}

static int topic_of(const unsigned char *name, unsigned length) {
  for (unsigned i = 0; i + 1 < length; i++) {
    if (name[i] != 'c' || name[i + 1] < '0' || name[i + 1] > '9') continue;
    int number = 0;
    for (i++; i < length && name[i] >= '0' && name[i] <= '9'; i++) number = number * 10 + name[i] - '0';
    return number < TOPICS_MAX ? number : TOPICS_MAX;
  }
  return TOPICS_MAX;
}

static void subscribe(int fd, int topic) {
  struct subscribers *all = &topics[topic];
  if (all->count == all->size) {
    all->size = all->size ? 2 * all->size : 1;
    all->fds = realloc(all->fds, (size_t)all->size * sizeof *all->fds);
    if (!all->fds) abort();
  }
  all->fds[all->count++] = fd;
  connections[fd].topic = topic + 1;
}

static void end(int fd) {
  struct connection *connection = &connections[fd];
  if (!connection->is_open) return;
  if (connection->topic) {
    struct subscribers *all = &topics[connection->topic - 1];
    for (int i = 0; i < all->count; i++) {
      if (all->fds[i] != fd) continue;
      all->fds[i] = all->fds[--all->count];
      break;
    }
    if (!all->count) {
      free(all->fds);
      *all = (struct subscribers){0};
    }
  }
  release(&connection->input);
  release(&connection->output);
  connection->is_open = 0;
  close(fd);
}

/* Appends a PUBLISH to the output of each subscriber; the packet identifier is at `id` if its QoS is 1. */
static void forward(struct subscribers *to, const unsigned char *packet, uint32_t count, uint32_t id, int qos) {
  for (int i = 0; i < to->count; i++) {
    int fd = to->fds[i];
    struct bytes *output = output_of(fd);
    append(output, packet, count);
    if (qos) {
      uint16_t next = ++connections[fd].last_id ? connections[fd].last_id : ++connections[fd].last_id;
      output->at[output->length - count + id] = (unsigned char)(next >> 8);
      output->at[output->length - count + id + 1] = (unsigned char)next;
    }
  }
}

/* Handles one packet of `count` bytes with this header; 0 if the connection has ended. */
static int handle(int fd, const unsigned char *packet, uint32_t count, uint32_t header) {
  const unsigned char *body = packet + header;
  struct connection *connection = &connections[fd];
  switch (packet[0] >> 4) {
  case 1: {
    connection->level = (char)body[6];
    append(output_of(fd), (const unsigned char *)(body[6] == 5 ? "\x20\x03\0\0\0" : "\x20\x02\0\0"), body[6] == 5 ? 5 : 4);
    return 1;
  }
  case 3: {
    uint32_t length = (uint32_t)body[0] << 8 | body[1];
    int qos = packet[0] >> 1 & 3, topic = topic_of(body + 2, length);
    if (qos) {
      unsigned char puback[4] = {0x40, 2, body[2 + length], body[3 + length]};
      append(output_of(fd), puback, 4);
    }
    forward(&topics[topic], packet, count, header + 2 + length, qos);
    if (topics[TOPICS_MAX].count && topic != TOPICS_MAX) {
      forward(&topics[TOPICS_MAX], packet, count, header + 2 + length, qos);
    }
    return 1;
  }
  case 8: {
    int at = connection->level == 5 ? 3 : 2;
    uint32_t length = (uint32_t)body[at] << 8 | body[at + 1];
    unsigned char suback[6] = {0x90, 3, body[0], body[1], body[at + 2 + (int)length], 0};
    if (connection->level == 5) {
      suback[1] = 4;
      suback[5] = suback[4];
      suback[4] = 0;
    }
    append(output_of(fd), suback, connection->level == 5 ? 6 : 5);
    subscribe(fd, topic_of(body + at + 2, length));
    return 1;
  }
  case 12: append(output_of(fd), (const unsigned char *)"\xd0\0", 2); return 1;
  case 14: end(fd); return 0;
  default: return 1;
  }
}

/* Handles whole packets; their length. */
static uint32_t handle_all(int fd, const unsigned char *bytes, uint32_t count) {
  uint32_t from = 0;
  while (from + 2 <= count) {
    uint32_t length = 0, header = 1;
    do length |= (uint32_t)(bytes[from + header] & 0x7f) << (7 * (header - 1));
    while (bytes[from + header++] & 0x80 && from + header < count);
    if (from + header + length > count) break;
    if (!handle(fd, bytes + from, header + length, header)) return count;
    from += header + length;
  }
  return from;
}

static void serve(int fd) {
  struct connection *connection = &connections[fd];
  ssize_t count = read(fd, buffer, BUFFER_BYTES);
  if (count <= 0) {
    if (count == 0 || errno != EAGAIN) end(fd);
    return;
  }
  uint32_t all = (uint32_t)count;
  if (!connection->input.length) {
    uint32_t taken = handle_all(fd, buffer, all);
    if (taken < all) append(&connection->input, buffer + taken, all - taken);
    return;
  }
  append(&connection->input, buffer, all);
  struct bytes input = connection->input;
  connection->input = (struct bytes){0};
  uint32_t taken = handle_all(fd, input.at, input.length);
  if (taken < input.length) append(&connection->input, input.at + taken, input.length - taken);
  release(&input);
}

/* Writes the output of a connection; what the socket does not take waits until it is writable. */
static void flush(int fd) {
  struct connection *connection = &connections[fd];
  struct bytes *output = &connection->output;
  ssize_t count = write(fd, output->at, output->length);
  if (count < 0 && errno != EAGAIN) {
    end(fd);
    return;
  }
  uint32_t taken = count < 0 ? 0 : (uint32_t)count;
  char waits = taken < output->length;
  if (waits) memmove(output->at, output->at + taken, output->length - taken);
  output->length -= taken;
  if (waits != connection->waits_for_room) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (waits ? EPOLLOUT : 0), .data.fd = fd};
    connection->waits_for_room = waits;
    epoll_ctl(poll, EPOLL_CTL_MOD, fd, &event);
  }
  if (!waits) release(output);
}

static void accept_all(int listener) {
  int client, one = 1;
  while ((client = accept4(listener, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = client};
    if (client >= CONNECTIONS_MAX) abort();
    connections[client] = (struct connection){.is_open = 1};
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
  struct epoll_event events[EVENTS_MAX] = {{.events = EPOLLIN, .data.fd = listener}};

  poll = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
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
      if (events[i].data.fd == listener) accept_all(listener);
      else if (events[i].events & EPOLLOUT && !connections[events[i].data.fd].has_output) output_of(events[i].data.fd);
      if (events[i].data.fd != listener && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) serve(events[i].data.fd);
    }
    for (int i = 0; i < to_write_count; i++) {
      connections[to_write[i]].has_output = 0;
      if (connections[to_write[i]].is_open && connections[to_write[i]].output.length) flush(to_write[i]);
    }
    to_write_count = 0;
  }
}
