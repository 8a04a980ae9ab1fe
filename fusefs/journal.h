/* The journal: memory of unsaved data that outlives the process, and what it holds.
 * docs/journal.md tells how and why.
 *
 * owns:    memory from journal_alloc goes back with journal_free.
 * threads: any. A chain is guarded by its inode's lock; the lock within is the innermost.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct journal;
struct journal_chain;

/* What an earlier mount left: its file, mapped to be read. */
struct journal_old {
    char *path;
    int fd;
    const uint8_t *data;
    uint64_t size;
};

/* --- journal_file.c --- */
/* DIRECTORY NULL: the default. SOURCE: which store, prefix and endpoint. BYTES: the most that it
 * will hold. Takes over what dead mounts of SOURCE left: journal_old_count. */
struct journal *journal_open(const char *directory, const char *source, uint64_t bytes,
                             GError **error);
/* Makes its file; until then there is no room in it. After the recovery: what is left of earlier
 * mounts may fill the filesystem. */
bool journal_begin(struct journal *journal, GError **error);
/* Called now and then while the mount lives: its file's time tells when its owner was last there,
 * which stores into the mapping do not. */
void journal_touch(struct journal *journal);
/* From now on nothing in it changes, whatever is given back. */
void journal_seal(struct journal *journal);
/* After all memory was given back. True: something is left for the next mount, here or in what
 * earlier ones had left. Takes NULL. */
bool journal_close(struct journal *journal);
unsigned journal_old_count(const struct journal *journal);
const struct journal_old *journal_old_at(const struct journal *journal, unsigned index);
bool journal_old_is_backed(const struct journal_old *old, uint64_t pos, uint64_t length);
/* File INDEX of it needs no recovery any more. */
bool journal_old_cross_out(const struct journal_old *old, uint32_t index, GError **error);
/* The first of them, all of which is recovered. */
bool journal_old_remove(struct journal *journal, GError **error);

/* --- journal_space.c --- */
/* SIZE: a power of two up to 1 MiB. NULL: there is no room (said once). */
void *journal_alloc(struct journal *journal, uint32_t size);
void journal_free(struct journal *journal, void *memory, uint32_t size);
/* Lets go of memory that nobody uses, but for BYTES of it, which is warm. */
void journal_trim(struct journal *journal, uint64_t bytes);
uint64_t journal_position(const struct journal *journal, const void *memory);

/* --- journal_chain.c --- */
/* IMAGE in place of what the chain told. False: no room; then it tells nothing. */
bool chain_write(struct journal *journal, struct journal_chain *chain, const GByteArray *image,
                 uint32_t state);
bool chain_append(struct journal *journal, struct journal_chain *chain, uint64_t offset,
                  uint64_t pos, uint32_t length);
void chain_clear(struct journal *journal, struct journal_chain *chain);
/* Before CHAIN is freed: clears it, unless the journal is sealed. */
void chain_end(struct journal *journal, struct journal_chain *chain);
