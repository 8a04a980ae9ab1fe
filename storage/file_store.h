/* The file driver's own parts; callers use store.h with file:///dir.
 *
 * shape:   the object KEY is the file DIR/KEY, plain bytes. Segments that a filesystem cannot hold
 *          are escaped (file_store_key.c). Metadata are one user xattr. DIR/.dstack-tmp holds what
 *          is not published: new files, uploads, and the locks that make conditions atomic between
 *          processes.
 * safety:  a published file is never modified, only replaced: an open descriptor is one version.
 * threads: every function runs on a thread of the pool, many at once.
 */
#pragma once

#include "storage/pool.h"
#include "storage/store_driver.h"

#include <pthread.h>
#include <sys/stat.h>

#define FILE_STORE_TMP      ".dstack-tmp"
#define FILE_STORE_UPLOADS  "uploads"
#define FILE_STORE_KEY_MAX  1024
#define FILE_STORE_LIST_MAX 10000
#define FILE_STORE_METADATA 2048

struct file_store {
    struct store base;
    struct pool *pool;
    char *dir;
    int root_fd;

    pthread_mutex_t rests_lock;
    GQueue rests; /* struct listing_rest*, the newest first (file_store_list.c) */
};

/* --- keys (file_store_key.c) --- */
/* The path of KEY below DIR; NULL and *ERROR when it cannot be one. */
char *file_store_path(const char *key, GError **error);
/* One segment of a key as a file's name, and back; NULL when NAME is no segment's name. */
char *file_store_encode_segment(const char *segment);
char *file_store_decode_segment(const char *name);

/* --- metadata (file_store_meta.c) --- */
/* Lines "name=value", with % escapes. What does not parse is dropped. */
char *file_store_format_metadata(GHashTable *metadata);
GHashTable *file_store_parse_metadata(const char *text, size_t size);
bool file_store_read_metadata(int fd, const char *key, GHashTable **metadata, GError **error);
bool file_store_write_metadata(int fd, const char *key, GHashTable *metadata, GError **error);

/* --- objects (file_store_object.c) --- */
/* Sets *ERROR from errno value CODE, as the table in store.h has it. Returns false. */
bool file_store_error(GError **error, int code, const char *verb, const char *key);
char *file_store_etag(const struct stat *st);
void file_store_describe(struct store_object *object, const char *key, const struct stat *st);
/* An open file of KEY; -1 and *ERROR (ENOENT, ESTALE when IF_MATCH differs). */
int file_store_open_object(struct file_store *store, const char *key, const char *if_match,
                           struct stat *st, GError **error);
void file_store_get(struct file_store *store, struct store_call *call, GError **error);

/* --- new files (file_store_temp.c) --- */
typedef struct file_temp {
    struct file_store *store;
    int tmp_fd, fd; /* DIR/.dstack-tmp, and the file in it */
    char *name;     /* NULL once published */
} file_temp_t;
bool file_temp_open(struct file_temp *temp, struct file_store *store, GError **error);
void file_temp_clear(struct file_temp *temp); /* removes the file unless it was published */
bool file_temp_write(struct file_temp *temp, const struct store_call *call, GError **error);
/* Appends LENGTH bytes of SOURCE_FD from OFFSET; looks at the call's cancellation. */
bool file_temp_append(struct file_temp *temp, int source_fd, uint64_t offset, uint64_t length,
                      struct store_call *call, GError **error);
/* Durable content, a modification time that no other version has. */
bool file_temp_finish(struct file_temp *temp, struct stat *st, GError **error);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(file_temp_t, file_temp_clear)

/* DIR/.dstack-tmp, or PATH below it, made when missing; -1 and errno. */
int file_store_open_tmp(struct file_store *store, const char *path);
void file_store_remove_stale(struct file_store *store);

/* --- changes (file_store_change.c) --- */
/* Puts TEMP in place of the call's key, under the call's conditions; fills call->object. */
bool file_store_publish(struct file_temp *temp, struct store_call *call, GHashTable *metadata,
                        GError **error);
void file_store_put(struct file_store *store, struct store_call *call, GError **error);
void file_store_copy(struct file_store *store, struct store_call *call, GError **error);
void file_store_delete(struct file_store *store, struct store_call *call, GError **error);
void file_store_delete_many(struct file_store *store, struct store_call *call, GError **error);

/* --- listing (file_store_list.c) --- */
void file_store_forget_rests(struct file_store *store);
void file_store_list(struct file_store *store, struct store_call *call, GError **error);

/* --- uploads (file_store_upload.c) --- */
void file_store_begin(struct file_store *store, struct store_call *call, GError **error);
void file_store_part(struct file_store *store, struct store_call *call, GError **error);
void file_store_commit(struct file_store *store, struct store_call *call, GError **error);
void file_store_abort(struct file_store *store, struct store_call *call, GError **error);
void file_store_uploads(struct file_store *store, struct store_call *call, GError **error);
/* Removes an upload's directory; takes one that is gone. */
bool file_store_remove_upload(struct file_store *store, const char *upload_id, GError **error);
