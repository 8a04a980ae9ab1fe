/* The artifact filesystem over one store prefix: one object a file, plain bytes. No FUSE in here:
 * fuse_ops.c turns the kernel's requests into these calls, tests make them directly.
 *
 * shape:   an inode's number comes from its path as it was first seen; FS_ROOT is the prefix
 * itself. A directory is an empty object whose key ends in '/', or nothing but a common prefix of
 * others. errors:  every call returns 0 or an errno value; the cause stands in the log, once for
 * each object. owns:    a struct fs_file from fs_open/fs_create ends in fs_release. threads: any,
 * at once. A call may block on the store; `caller->interrupted` is asked at least every 100 ms
 * while it waits, and ends the wait with EINTR. source:  POSIX.1-2017; the attributes' keys are
 * s3fs's (storage/file_attrs.h); docs/filesystem.md states what is promised.
 */
#pragma once

#include "storage/store.h"
#include <sys/stat.h>
#include <sys/statvfs.h>

#define FS_ROOT 1

struct fs;
struct fs_file;
struct fs_dir;

struct fs_caller;
struct journal;
struct lease;
struct lease_record;

struct fs_options {
    /* Under whose name it writes; NULL: nobody's (and nothing is left for the next mount to find).
     * An exclusive one makes this filesystem the authority: what it knows needs no asking. */
    struct lease *lease;
    uint64_t budget_bytes;     /* 0: budget_default_bytes() */
    uint64_t part_bytes;       /* 0: 8 MiB */
    unsigned sync_interval_ms; /* 0: 1000 */
    unsigned attr_ttl_ms;      /* how long what the store said is believed; 0: 1000 */
    /* Where unsaved data outlives a crash; NULL: nowhere. Closed by the caller, after fs_free. */
    struct journal *journal;
    bool (*cancelled)(const struct fs_caller *caller); /* asked while it recovers; may be NULL */
    bool read_only;
    uid_t uid; /* of what carries no attributes of its own */
    gid_t gid;
    mode_t umask;
};

/* Who asks, and whether they still want it. */
struct fs_caller {
    uid_t uid;
    gid_t gid;
    pid_t task;                                          /* the thread's id; 0: not known */
    bool (*interrupted)(const struct fs_caller *caller); /* NULL: never */
    void *user;
    int64_t began_ms; /* of the call, by the monotonic clock */
};

/* Which of struct stat's fields fs_setattr changes. */
enum fs_set {
    FS_SET_MODE = 1,
    FS_SET_UID = 2,
    FS_SET_GID = 4,
    FS_SET_SIZE = 8,
    FS_SET_MTIME = 16,
    FS_SET_ATIME = 32,
};

/* Holds a reference to STORE, whose prefix is empty or ends in '/'. Starts its threads. */
struct fs *fs_new(struct store *store, const struct fs_options *options);

/* Clears up behind mounts that ended badly: their renames are finished, what their journals tell of
 * is saved, their uploads aborted, their staged objects removed. PREVIOUS (may be NULL) is whose
 * lease was taken over. Before any other call. */
bool fs_clear_leftovers(struct fs *fs, const struct lease_record *previous, GError **error);

/* Refuses new writes (EROFS), then saves all that is dirty, for at most TIMEOUT_MS (0: no limit).
 * UNSAVED: the paths of what was not (free with g_ptr_array_unref). */
bool fs_drain(struct fs *fs, unsigned timeout_ms, GPtrArray **unsaved);
/* Why something could not be saved, the last time; the caller's. NULL: nothing failed. */
char *fs_last_complaint(struct fs *fs);

/* Nothing that is dirty can be saved any more, however long one waits: the lease is lost, or the
 * store refuses what is left. */
bool fs_is_hopeless(struct fs *fs);

/* After the last call. Uploads in progress are aborted. */
void fs_free(struct fs *fs);

/* From now on a thread asks the kernel, by FORGET, to let go of the names that were not used for
 * longest, when there are many. FORGET is called with no lock held. */
typedef void fs_ask_forget(void *user, uint64_t parent, const char *name);
void fs_forget_start(struct fs *fs, fs_ask_forget *forget, void *user);
void fs_forget_stop(struct fs *fs); /* may have been done before */

/* How long the kernel may believe an answer, and that there is no such name. */
unsigned fs_attr_ttl_ms(struct fs *fs);
unsigned fs_negative_ttl_ms(struct fs *fs);

int fs_lookup(struct fs *fs, struct fs_caller *caller, uint64_t parent, const char *name,
              struct stat *st);
void fs_forget(struct fs *fs, uint64_t ino, uint64_t lookups);
int fs_getattr(struct fs *fs, struct fs_caller *caller, uint64_t ino, struct stat *st);
int fs_setattr(struct fs *fs, struct fs_caller *caller, uint64_t ino, const struct stat *to,
               unsigned set, struct stat *st);

/* These answer like fs_lookup: the new inode counts one lookup. */
int fs_create(struct fs *fs, struct fs_caller *caller, uint64_t parent, const char *name,
              mode_t mode, int flags, struct fs_file **file, struct stat *st);
int fs_mkdir(struct fs *fs, struct fs_caller *caller, uint64_t parent, const char *name,
             mode_t mode, struct stat *st);
int fs_symlink(struct fs *fs, struct fs_caller *caller, const char *target, uint64_t parent,
               const char *name, struct stat *st);
int fs_readlink(struct fs *fs, struct fs_caller *caller, uint64_t ino, char **target);

/* Extended attributes, "user." ones. FLAGS: XATTR_CREATE, XATTR_REPLACE. ENOSPC: the store's
 * metadata can hold no more. NAMES are zero-terminated, one behind the other. */
int fs_setxattr(struct fs *fs, struct fs_caller *caller, uint64_t ino, const char *name,
                const void *value, size_t size, int flags);
int fs_removexattr(struct fs *fs, struct fs_caller *caller, uint64_t ino, const char *name);
int fs_getxattr(struct fs *fs, struct fs_caller *caller, uint64_t ino, const char *name,
                GBytes **value);
int fs_listxattr(struct fs *fs, struct fs_caller *caller, uint64_t ino, GBytes **names);

int fs_unlink(struct fs *fs, struct fs_caller *caller, uint64_t parent, const char *name);
int fs_rmdir(struct fs *fs, struct fs_caller *caller, uint64_t parent, const char *name);
int fs_rename(struct fs *fs, struct fs_caller *caller, uint64_t parent, const char *name,
              uint64_t new_parent, const char *new_name, unsigned flags);

/* ESTALE: another client replaced it; look its name up again. KEEP_CACHE: what the kernel holds of
 * this file is still right. */
int fs_open(struct fs *fs, struct fs_caller *caller, uint64_t ino, int flags, struct fs_file **file,
            bool *keep_cache);

/* Calls REPLY once with the bytes, which are valid during it; fewer than SIZE only at the end. SIZE
 * is at most 1 MiB, or the file is not written to. */
typedef void fs_reply(void *user, const struct iovec *iov, unsigned count);
int fs_read(struct fs *fs, struct fs_caller *caller, struct fs_file *file, uint64_t offset,
            size_t size, fs_reply *reply, void *user);
int fs_write(struct fs *fs, struct fs_caller *caller, struct fs_file *file, uint64_t offset,
             const void *data, size_t size);
/* Pages of a shared mapping, for which the kernel takes any handle that writes: they go where they
 * say, also when that handle appends. */
int fs_write_back(struct fs *fs, struct fs_caller *caller, struct fs_file *file, uint64_t offset,
                  const void *data, size_t size);

/* Durable when it returns 0; fs_flush is what close() waits for. */
int fs_fsync(struct fs *fs, struct fs_caller *caller, struct fs_file *file);
int fs_flush(struct fs *fs, struct fs_caller *caller, struct fs_file *file);
void fs_release(struct fs *fs, struct fs_file *file);

/* A directory's names as they are when it is opened, or opened again from the beginning; INDEX goes
 * on from 0. False at the end. */
struct fs_entry {
    const char *name; /* the directory's, until it is closed or rewound */
    mode_t type;      /* S_IFDIR, S_IFREG, S_IFLNK, or 0: "look it up" */
    uint64_t ino;
};
int fs_opendir(struct fs *fs, struct fs_caller *caller, uint64_t ino, struct fs_dir **dir);
int fs_rewinddir(struct fs *fs, struct fs_caller *caller, struct fs_dir *dir);
bool fs_dir_entry(const struct fs_dir *dir, uint64_t index, struct fs_entry *entry);
/* What is known of ENTRY without asking the store. True: it answers like fs_lookup, and counts one
 * lookup. */
bool fs_dir_stat(struct fs *fs, struct fs_dir *dir, const struct fs_entry *entry, struct stat *st);
void fs_closedir(struct fs *fs, struct fs_dir *dir);

int fs_statfs(struct fs *fs, struct statvfs *st);

/* What fs_clear_leftovers found in journals and saved. */
struct fs_recovered {
    uint64_t files, bytes;
    GPtrArray *aside, *lost; /* char*: beside their names; not at all */
};
const struct fs_recovered *fs_recovered(const struct fs *fs);

uint64_t fs_budget_bytes(struct fs *fs);

/* For tests and the status file. */
uint64_t fs_peak_bytes(struct fs *fs);
