/* A store in memory, for tests: every verb, every condition, answered on threads of its own.
 *
 * shape:   "a" and "a/b" can both be objects; conditions are atomic; ETags count up, so that no two
 *          versions share one. caps may be changed (store_driver.h) before the first call.
 */
#pragma once

#include "storage/store.h"

struct store *memory_store_new(void);

/* Its clock is AHEAD_MS before this machine's: so that time passes, or clocks disagree. */
void memory_store_set_clock(struct store *store, int64_t ahead_ms);

/* It tells times as S3 does: to the second, but in listings. A copy has its source's ETag. Before
 * the first call. */
void memory_store_imitate_s3(struct store *store);

/* Its HEADs are answered LATE_MS after the object was looked at. */
void memory_store_answer_late(struct store *store, int64_t late_ms);

/* How many uploads are in progress: a test's way to see that nothing was left. */
unsigned memory_store_uploads(struct store *store);
