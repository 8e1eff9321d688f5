/* The log's memory: a memfd, allocated at once, sealed as soon as its one writable mapping exists.
 *
 * A read-only descriptor is no protection (it can be opened again through /proc), so the seals
 * carry it: after them only a process forked from the creator can hold the writable mapping, and
 * nobody can cut the file under a reader's feet. */
#include "layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)

struct layout {
    size_t marks, buckets, ring, total; /* where each begins; bytes in all */
    uint64_t n_buckets;
};

static struct layout layout_of(uint64_t size)
{
    struct layout l = { .marks = LOG_HEADER_SIZE, .n_buckets = size / LOG_RING_PER_BUCKET };
    l.buckets = l.marks + LOG_MARKS * sizeof(struct log_mark);
    l.ring = l.buckets + l.n_buckets * sizeof(struct log_bucket);
    l.total = l.ring + size;
    return l;
}
static_assert(LOG_MARKS * sizeof(struct log_mark) % 4096 == 0, "buckets begin on a page");
static_assert(LOG_SIZE_MIN / LOG_RING_PER_BUCKET * sizeof(struct log_bucket) % 4096 == 0,
              "the ring begins on a page");

static uint64_t round_up(uint64_t size)
{
    uint64_t power = LOG_SIZE_MIN;
    while (power < size)
        power *= 2;
    return power;
}

/* Takes the mapping of a whole log. */
static int new_log(void *map, const struct layout *l, uint64_t size, struct log **ret)
{
    const struct log_header *header = map;
    struct log *log = malloc(sizeof(*log));
    if (!log)
        return -ENOMEM;
    *log = (struct log){
        .header = map,
        .marks = (void *)((char *)map + l->marks),
        .buckets = (void *)((char *)map + l->buckets),
        .ring = (void *)((char *)map + l->ring),
        .mask = size - 1,
        .bucket_mask = l->n_buckets - 1,
        .mark_shift = (unsigned)__builtin_ctzll(size / LOG_MARKS),
        .secret = { header->secret[0], header->secret[1] },
        .map_size = l->total,
        .fd = -1,
    };
    *ret = log;
    return 0;
}

static int random_bytes(void *to, size_t n)
{
    const ssize_t got = getrandom(to, n, 0);
    if (got < 0)
        return -errno;
    return (size_t)got == n ? 0 : -EIO;
}

/* A fresh memfd is zeros: empty buckets, no marks. The first offset is `size`, so that 0 is none.
 */
static int init_header(struct log_header *header, uint64_t size)
{
    uint64_t random[4];
    const int r = random_bytes(random, sizeof(random));
    if (r < 0)
        return r;
    header->magic = LOG_MAGIC;
    header->version = LOG_VERSION;
    header->size = size;
    memcpy(header->epoch, random, sizeof(header->epoch));
    memcpy(header->secret, random + 2, sizeof(header->secret));
    atomic_store_explicit(&header->tail, size, memory_order_relaxed);
    atomic_store_explicit(&header->head, size, memory_order_relaxed);
    atomic_store_explicit(&header->indexed, size, memory_order_release);
    return 0;
}

static int allocate(int fd, size_t size)
{
    int r;
    do
        r = fallocate(fd, 0, 0, (off_t)size);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

static int create_mapped(int fd, uint64_t size, struct log **ret)
{
    const struct layout l = layout_of(size);
    int r = allocate(fd, l.total);
    if (r < 0)
        return r;
    void *map = mmap(NULL, l.total, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    r = init_header(map, size);
    if (r == 0 && fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        r = -errno;
    if (r == 0)
        r = new_log(map, &l, size, ret);
    if (r < 0)
        (void)munmap(map, l.total);
    return r;
}

int log_create(uint64_t size, struct log **ret)
{
    if (size > LOG_SIZE_MAX)
        return -EINVAL;
    const int fd = memfd_create("fanwire-log", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    const int r = create_mapped(fd, round_up(size), ret);
    if (r < 0)
        (void)close(fd);
    else
        (*ret)->fd = fd;
    return r;
}

/* Is it sealed and as large as a log of `size` bytes of ring must be? Then it stays so. */
static int check_file(int fd, uint64_t *ret_file_size)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    const int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS || st.st_size < LOG_HEADER_SIZE)
        return -EPROTO;
    *ret_file_size = (uint64_t)st.st_size;
    return 0;
}

static int check_header(const struct log_header *header, uint64_t file_size)
{
    const uint64_t size = header->size;
    if (header->magic != LOG_MAGIC || header->version != LOG_VERSION)
        return -EPROTO;
    if (size < LOG_SIZE_MIN || size > LOG_SIZE_MAX || (size & (size - 1)) != 0)
        return -EPROTO;
    return layout_of(size).total == file_size ? 0 : -EPROTO;
}

int log_attach(int fd, struct log **ret)
{
    uint64_t file_size = 0;
    int r = check_file(fd, &file_size);
    if (r < 0)
        return r;
    void *map = mmap(NULL, file_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    r = check_header(map, file_size);
    if (r == 0) {
        const uint64_t size = ((const struct log_header *)map)->size;
        const struct layout l = layout_of(size);
        r = new_log(map, &l, size, ret);
    }
    if (r < 0)
        (void)munmap(map, file_size);
    return r;
}

void log_close(struct log *log)
{
    if (!log)
        return;
    (void)munmap(log->header, log->map_size);
    if (log->fd >= 0)
        (void)close(log->fd);
    free(log);
}

int log_fd(const struct log *log)
{
    return log->fd;
}

int log_lock_writer(struct log *log)
{
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    if (fcntl(log->fd, F_SETLK, &lock) == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

uint64_t log_size(const struct log *log)
{
    return log->mask + 1;
}

uint64_t log_epoch(const struct log *log)
{
    return log->header->epoch[0];
}

uint64_t log_event_max(const struct log *log)
{
    return log_size(log) / 16;
}
