#include "storage/s3_uploads.h"

#include <pthread.h>

struct s3_uploads {
    pthread_mutex_t lock;
    GHashTable *by_id; /* guarded by lock; char* upload id -> struct upload */
};

struct upload {
    char *write_id;
    GPtrArray *checksums; /* char*, from part 1, NULL where not known; itself NULL: it has none */
};

static void upload_free(void *data)
{
    struct upload *upload = data;

    g_free(upload->write_id);
    g_clear_pointer(&upload->checksums, g_ptr_array_unref);
    g_free(upload);
}

struct s3_uploads *s3_uploads_new(void)
{
    struct s3_uploads *uploads = g_new0(struct s3_uploads, 1);

    pthread_mutex_init(&uploads->lock, NULL);
    uploads->by_id = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, upload_free);
    return uploads;
}

void s3_uploads_free(struct s3_uploads *uploads)
{
    if (!uploads)
        return;
    g_hash_table_unref(uploads->by_id);
    pthread_mutex_destroy(&uploads->lock);
    g_free(uploads);
}

void s3_uploads_add(struct s3_uploads *uploads, const char *upload_id, const char *write_id,
                    bool has_checksums)
{
    struct upload *upload = g_new0(struct upload, 1);

    upload->write_id = g_strdup(write_id);
    upload->checksums = has_checksums ? g_ptr_array_new_with_free_func(g_free) : NULL;
    pthread_mutex_lock(&uploads->lock);
    g_hash_table_replace(uploads->by_id, g_strdup(upload_id), upload);
    pthread_mutex_unlock(&uploads->lock);
}

void s3_uploads_remove(struct s3_uploads *uploads, const char *upload_id)
{
    pthread_mutex_lock(&uploads->lock);
    g_hash_table_remove(uploads->by_id, upload_id);
    pthread_mutex_unlock(&uploads->lock);
}

char *s3_uploads_write_id(struct s3_uploads *uploads, const char *upload_id)
{
    const struct upload *upload;
    char *write_id;

    pthread_mutex_lock(&uploads->lock);
    upload = g_hash_table_lookup(uploads->by_id, upload_id);
    write_id = upload ? g_strdup(upload->write_id) : NULL;
    pthread_mutex_unlock(&uploads->lock);
    return write_id;
}

bool s3_uploads_has_checksums(struct s3_uploads *uploads, const char *upload_id)
{
    const struct upload *upload;
    bool has;

    pthread_mutex_lock(&uploads->lock);
    upload = g_hash_table_lookup(uploads->by_id, upload_id);
    has = upload && upload->checksums;
    pthread_mutex_unlock(&uploads->lock);
    return has;
}

void s3_uploads_set_checksum(struct s3_uploads *uploads, const char *upload_id, unsigned part,
                             const char *checksum)
{
    struct upload *upload;

    pthread_mutex_lock(&uploads->lock);
    upload = g_hash_table_lookup(uploads->by_id, upload_id);
    if (upload && upload->checksums) {
        if (upload->checksums->len < part)
            g_ptr_array_set_size(upload->checksums, (int)part);
        g_free(upload->checksums->pdata[part - 1]);
        upload->checksums->pdata[part - 1] = g_strdup(checksum);
    }
    pthread_mutex_unlock(&uploads->lock);
}

char *s3_uploads_checksum(struct s3_uploads *uploads, const char *upload_id, unsigned part)
{
    const struct upload *upload;
    char *checksum = NULL;

    pthread_mutex_lock(&uploads->lock);
    upload = g_hash_table_lookup(uploads->by_id, upload_id);
    if (upload && upload->checksums && part >= 1 && part <= upload->checksums->len)
        checksum = g_strdup(upload->checksums->pdata[part - 1]);
    pthread_mutex_unlock(&uploads->lock);
    return checksum;
}
