#include "fusefs/budget.h"

#include "fusefs/journal.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define CAPACITY_MIN 4096
#define HUGE_BYTES   ((size_t)2 * BUFFER_MAX) /* a huge page */

struct budget {
    uint64_t limit;
    struct journal *journal; /* may be NULL */
    pthread_mutex_t lock;
    pthread_cond_t room;
    /* guarded by lock: */
    uint64_t used, peak, charged;
    unsigned waiting;
    GPtrArray *idle; /* memory of BUFFER_MAX bytes each, warm, not counted in used */
};

struct budget *budget_new(uint64_t limit_bytes)
{
    struct budget *budget = g_new0(struct budget, 1);
    pthread_condattr_t attr;

    budget->limit = MAX(limit_bytes, 16u * BUFFER_MAX);
    budget->idle = g_ptr_array_new();
    pthread_mutex_init(&budget->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&budget->room, &attr);
    pthread_condattr_destroy(&attr);
    return budget;
}

void budget_use_journal(struct budget *budget, struct journal *journal)
{
    budget->journal = journal;
}

void budget_free(struct budget *budget)
{
    if (!budget)
        return;
    g_assert(budget->used == 0);
    for (guint i = 0; i < budget->idle->len; i++)
        munmap(budget->idle->pdata[i], BUFFER_MAX);
    g_ptr_array_free(budget->idle, TRUE);
    pthread_cond_destroy(&budget->room);
    pthread_mutex_destroy(&budget->lock);
    g_free(budget);
}

/* The smallest memory.max from this process's cgroup up to the root; 0 when there is none. */
static uint64_t cgroup_limit(void)
{
    g_autofree char *text = NULL;
    g_autofree char *path = NULL;
    uint64_t limit = 0;

    if (!g_file_get_contents("/proc/self/cgroup", &text, NULL, NULL))
        return 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        if (g_str_has_prefix(line, "0::"))
            path = g_strdup(line + 3);
    while (path && *path) {
        g_autofree char *file = g_build_filename("/sys/fs/cgroup", path, "memory.max", NULL);
        g_autofree char *value = NULL;
        char *slash = strrchr(path, '/');

        if (g_file_get_contents(file, &value, NULL, NULL) && g_ascii_isdigit(*value)) {
            uint64_t here = g_ascii_strtoull(value, NULL, 10);
            limit = limit ? MIN(limit, here) : here;
        }
        if (!slash)
            break;
        *slash = '\0';
    }
    return limit;
}

uint64_t budget_default_bytes(void)
{
    uint64_t limit = cgroup_limit();
    uint64_t most = 512ull << 20;

    return limit && limit / 4 < most ? limit / 4 : most;
}

static uint64_t lane_limit(const struct budget *budget, enum budget_lane lane)
{
    switch (lane) {
    case BUDGET_AHEAD:
        return budget->limit / 2;
    case BUDGET_DIRTY:
        return budget->limit / 4 * 3;
    default:
        return budget->limit;
    }
}

/* With the lock held: what LANE finds taken. */
static uint64_t taken_for(const struct budget *budget, enum budget_lane lane)
{
    return budget->used + (lane == BUDGET_PADDING ? 0 : MIN(budget->charged, budget->limit / 4));
}

static size_t round_capacity(size_t capacity)
{
    size_t rounded = CAPACITY_MIN;

    while (rounded < capacity)
        rounded *= 2;
    return rounded;
}

static bool is_for_journal(const struct budget *budget, enum budget_lane lane)
{
    return budget->journal && lane == BUDGET_DIRTY;
}

/* With the lock held: warm memory that is in the way of what is used is dropped, the journal's too.
 */
static void drop_idle(struct budget *budget)
{
    uint64_t room = budget->limit - MIN(taken_for(budget, BUDGET_WANTED), budget->limit);

    while (budget->idle->len && (uint64_t)budget->idle->len * BUFFER_MAX > room)
        munmap(g_ptr_array_remove_index_fast(budget->idle, budget->idle->len - 1), BUFFER_MAX);
    if (budget->journal)
        journal_trim(budget->journal, room - (uint64_t)budget->idle->len * BUFFER_MAX);
}

/* With the lock held: takes CAPACITY out of the budget. *WARM: memory for it, or NULL. */
static bool take(struct budget *budget, size_t capacity, enum budget_lane lane, uint8_t **warm)
{
    *warm = NULL;
    if (taken_for(budget, lane) + capacity > lane_limit(budget, lane))
        return false;
    if (capacity == BUFFER_MAX && budget->idle->len && !is_for_journal(budget, lane))
        *warm = g_ptr_array_remove_index_fast(budget->idle, budget->idle->len - 1);
    budget->used += capacity;
    budget->peak = MAX(budget->peak, budget->used);
    drop_idle(budget);
    return true;
}

static void give_back(struct budget *budget, size_t capacity, uint8_t *warm)
{
    pthread_mutex_lock(&budget->lock);
    budget->used -= capacity;
    if (warm)
        g_ptr_array_add(budget->idle, warm);
    if (budget->waiting)
        pthread_cond_broadcast(&budget->room);
    pthread_mutex_unlock(&budget->lock);
}

void budget_charge(struct budget *budget, uint64_t size)
{
    pthread_mutex_lock(&budget->lock);
    budget->charged += size;
    drop_idle(budget);
    pthread_mutex_unlock(&budget->lock);
}

void budget_uncharge(struct budget *budget, uint64_t size)
{
    pthread_mutex_lock(&budget->lock);
    budget->charged -= size;
    if (budget->waiting)
        pthread_cond_broadcast(&budget->room);
    pthread_mutex_unlock(&budget->lock);
}

/* Two buffers' memory in one huge page, where the kernel has one: 512 times fewer page faults, and
 * quicker copies by the kernel. The second one is kept for the next buffer. */
static uint8_t *map_large(struct budget *budget)
{
    uint8_t *area =
        mmap(NULL, 2 * HUGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *memory;
    size_t before;

    if (area == MAP_FAILED)
        return NULL;
    before = -(uintptr_t)area % HUGE_BYTES;
    memory = area + before;
    if (before)
        munmap(area, before);
    munmap(memory + HUGE_BYTES, HUGE_BYTES - before);
    madvise(memory, HUGE_BYTES, MADV_HUGEPAGE);
    pthread_mutex_lock(&budget->lock);
    g_ptr_array_add(budget->idle, memory + BUFFER_MAX);
    pthread_mutex_unlock(&budget->lock);
    return memory;
}

static uint8_t *take_warm(struct budget *budget)
{
    uint8_t *warm = NULL;

    pthread_mutex_lock(&budget->lock);
    if (budget->idle->len)
        warm = g_ptr_array_remove_index_fast(budget->idle, budget->idle->len - 1);
    pthread_mutex_unlock(&budget->lock);
    return warm;
}

/* Of the process alone; NULL: there is none. */
static uint8_t *find_memory(struct budget *budget, size_t capacity)
{
    uint8_t *warm;

    if (capacity < BUFFER_MAX)
        return g_try_malloc(capacity);
    warm = take_warm(budget);
    return warm ? warm : map_large(budget);
}

static struct buffer *make_buffer(struct budget *budget, size_t capacity, enum budget_lane lane,
                                  uint8_t *memory)
{
    bool in_journal = is_for_journal(budget, lane);
    struct buffer *buffer;

    if (in_journal)
        memory = journal_alloc(budget->journal, capacity);
    if (!memory) {
        in_journal = false;
        memory = find_memory(budget, capacity); /* what has no room there is recycled too */
    }
    if (!memory) {
        give_back(budget, capacity, NULL);
        return NULL;
    }
    buffer = g_new0(struct buffer, 1);
    buffer->budget = budget;
    buffer->capacity = capacity;
    buffer->in_journal = in_journal;
    buffer->data = memory;
    atomic_store(&buffer->refs, 1);
    return buffer;
}

struct buffer *buffer_over(const void *data, uint32_t size)
{
    struct buffer *buffer = g_new0(struct buffer, 1);

    buffer->capacity = buffer->filled = size;
    buffer->data = (uint8_t *)data;
    atomic_store(&buffer->refs, 1);
    return buffer;
}

struct buffer *buffer_try_new(struct budget *budget, size_t capacity, enum budget_lane lane)
{
    uint8_t *warm;
    bool taken;

    capacity = round_capacity(capacity);
    pthread_mutex_lock(&budget->lock);
    taken = take(budget, capacity, lane, &warm);
    pthread_mutex_unlock(&budget->lock);
    return taken ? make_buffer(budget, capacity, lane, warm) : NULL;
}

struct buffer *buffer_wait_new(struct budget *budget, size_t capacity, enum budget_lane lane,
                               unsigned timeout_ms)
{
    struct timespec until;
    uint8_t *warm;
    bool taken;
    int rc = 0;

    capacity = round_capacity(capacity);
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000l;
    if (until.tv_nsec >= 1000000000l) {
        until.tv_nsec -= 1000000000l;
        until.tv_sec++;
    }
    pthread_mutex_lock(&budget->lock);
    budget->waiting++;
    while (!(taken = take(budget, capacity, lane, &warm)) && rc == 0)
        rc = pthread_cond_timedwait(&budget->room, &budget->lock, &until);
    budget->waiting--;
    pthread_mutex_unlock(&budget->lock);
    return taken ? make_buffer(budget, capacity, lane, warm) : NULL;
}

struct buffer *buffer_ref(struct buffer *buffer)
{
    atomic_fetch_add(&buffer->refs, 1);
    return buffer;
}

void buffer_unref(struct buffer *buffer)
{
    struct budget *budget = buffer ? buffer->budget : NULL;

    if (!buffer || atomic_fetch_sub(&buffer->refs, 1) != 1)
        return;
    if (budget && buffer->in_journal) {
        journal_free(budget->journal, buffer->data, buffer->capacity);
        give_back(budget, buffer->capacity, NULL);
    } else if (budget && buffer->capacity == BUFFER_MAX) {
        give_back(budget, BUFFER_MAX, buffer->data);
    } else if (budget) {
        g_free(buffer->data);
        give_back(budget, buffer->capacity, NULL);
    }
    g_free(buffer);
}

uint64_t budget_limit_bytes(const struct budget *budget)
{
    return budget->limit;
}

uint64_t budget_used_bytes(struct budget *budget)
{
    uint64_t used;

    pthread_mutex_lock(&budget->lock);
    used = budget->used;
    pthread_mutex_unlock(&budget->lock);
    return used;
}

uint64_t budget_peak_bytes(struct budget *budget)
{
    uint64_t peak;

    pthread_mutex_lock(&budget->lock);
    peak = budget->peak;
    pthread_mutex_unlock(&budget->lock);
    return peak;
}

bool budget_is_tight(struct budget *budget)
{
    bool tight;

    pthread_mutex_lock(&budget->lock);
    tight = budget->waiting > 0;
    pthread_mutex_unlock(&budget->lock);
    return tight;
}
