/* The filesystem's calls as the kernel's requests, and their answers as replies. */
#include "fusefs/fuse_internal.h"

#include "fusefs/signals.h"

#include <string.h>

#define MIN_WRITE (128 * 1024)

static struct fs *fs_of(fuse_req_t req)
{
    return ((struct fuse_ops *)fuse_req_userdata(req))->fs;
}

static struct fuse_session *session_of(fuse_req_t req)
{
    return ((struct fuse_ops *)fuse_req_userdata(req))->session;
}

/* A signal that the program handles and that does not ask it to end is heard only after this long:
 * no call takes as long when the store is well. */
#define PATIENCE_MS 60000
/* The kernel's word of a signal is a request too. When every thread waits there is none to take it:
 * who has waited for this long looks for signals itself. */
#define UNTOLD_MS 500
#define TAKE_MS   10 /* in which a thread that does not wait has taken the signal */

/* Whether it is TID that has to take the signal, which the kernel would tell. */
static bool is_ending_untold(pid_t tid)
{
    if (!task_is_asked_to_end(tid, false))
        return false;
    g_usleep(TAKE_MS * 1000);
    return task_is_asked_to_end(tid, false);
}

static bool request_interrupted(const struct fs_caller *caller)
{
    fuse_req_t req = caller->user;
    int64_t waited_ms = g_get_monotonic_time() / 1000 - caller->began_ms;

    if (fuse_req_interrupted(req))
        return waited_ms > PATIENCE_MS || task_is_asked_to_end(fuse_req_ctx(req)->pid, true);
    return waited_ms > UNTOLD_MS && is_ending_untold(fuse_req_ctx(req)->pid);
}

static struct fs_caller caller_of(fuse_req_t req)
{
    const struct fuse_ctx *ctx = fuse_req_ctx(req);

    return (struct fs_caller){.uid = ctx->uid,
                              .gid = ctx->gid,
                              .task = ctx->pid,
                              .interrupted = request_interrupted,
                              .user = req,
                              .began_ms = g_get_monotonic_time() / 1000};
}

static double attr_timeout(fuse_req_t req)
{
    return fs_attr_ttl_ms(fs_of(req)) / 1000.0;
}

static void entry_of(fuse_req_t req, const struct stat *st, struct fuse_entry_param *entry)
{
    memset(entry, 0, sizeof(*entry));
    entry->ino = st->st_ino;
    entry->attr = *st;
    entry->attr_timeout = entry->entry_timeout = attr_timeout(req);
}

/* Answers with a new lookup of an inode, which is taken back when nobody hears the answer. */
static void reply_entry(fuse_req_t req, int error, const struct stat *st)
{
    struct fs *fs = fs_of(req);
    struct fuse_entry_param entry;

    if (error) {
        fuse_reply_err(req, error);
        return;
    }
    entry_of(req, st, &entry);
    if (fuse_reply_entry(req, &entry) != 0)
        fs_forget(fs, st->st_ino, 1);
}

/* Each thread that serves a write holds its bytes, which are charged to the budget: with a small
 * one they are fewer, so that 64 of them are an eighth of it. libfuse takes the size of a read from
 * it too. */
static unsigned max_write(uint64_t budget_bytes)
{
    unsigned bytes = FUSE_MAX_REQUEST;

    while (bytes > MIN_WRITE && bytes > budget_bytes / 512)
        bytes /= 2;
    return bytes;
}

static void op_init(void *user, struct fuse_conn_info *conn)
{
    struct fuse_ops *ops = user;

    conn->max_read = FUSE_MAX_REQUEST; /* must be the mount option's value too */
    conn->max_write = max_write(fs_budget_bytes(ops->fs));
    conn->max_readahead = FUSE_READAHEAD_KB * 1024;
    conn->max_background = 64;
    conn->congestion_threshold = 48;
    conn->want |= conn->capable & (FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_ASYNC_READ |
                                   FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_AUTO_INVAL_DATA);
    conn->want &= ~FUSE_CAP_WRITEBACK_CACHE; /* sizes and times are ours to say */
    if (ops->options.ready)
        ops->options.ready(ops->options.user);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs_caller caller = caller_of(req);
    struct fuse_entry_param none = {.entry_timeout = fs_negative_ttl_ms(fs_of(req)) / 1000.0};
    struct stat st;
    int error = fs_lookup(fs_of(req), &caller, parent, name, &st);

    if (error == ENOENT && none.entry_timeout > 0)
        fuse_reply_entry(req, &none); /* the kernel may remember that there is none */
    else
        reply_entry(req, error, &st);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
    fs_forget(fs_of(req), ino, lookups);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        fs_forget(fs_of(req), forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

static void reply_attr(fuse_req_t req, int error, const struct stat *st)
{
    if (error)
        fuse_reply_err(req, error);
    else
        fuse_reply_attr(req, st, attr_timeout(req));
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs_caller caller = caller_of(req);
    struct stat st;

    reply_attr(req, fs_getattr(fs_of(req), &caller, ino, &st), &st);
}

static unsigned set_of(struct stat *st, int to_set)
{
    unsigned set = 0;

    set |= to_set & FUSE_SET_ATTR_MODE ? FS_SET_MODE : 0;
    set |= to_set & FUSE_SET_ATTR_UID ? FS_SET_UID : 0;
    set |= to_set & FUSE_SET_ATTR_GID ? FS_SET_GID : 0;
    set |= to_set & FUSE_SET_ATTR_SIZE ? FS_SET_SIZE : 0;
    set |= to_set & FUSE_SET_ATTR_MTIME ? FS_SET_MTIME : 0;
    set |= to_set & FUSE_SET_ATTR_ATIME ? FS_SET_ATIME : 0;
    if (to_set & FUSE_SET_ATTR_MTIME_NOW) {
        clock_gettime(CLOCK_REALTIME, &st->st_mtim);
        set |= FS_SET_MTIME;
    }
    if (to_set & FUSE_SET_ATTR_ATIME_NOW) {
        clock_gettime(CLOCK_REALTIME, &st->st_atim);
        set |= FS_SET_ATIME;
    }
    return set;
}

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                       struct fuse_file_info *fi)
{
    struct fs_caller caller = caller_of(req);
    struct stat to = *attr, st;
    unsigned set = set_of(&to, to_set);

    reply_attr(req, fs_setattr(fs_of(req), &caller, ino, &to, set, &st), &st);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    struct fs_caller caller = caller_of(req);
    g_autofree char *target = NULL;
    int error = fs_readlink(fs_of(req), &caller, ino, &target);

    if (error)
        fuse_reply_err(req, error);
    else
        fuse_reply_readlink(req, target);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct fs_caller caller = caller_of(req);
    struct stat st;

    reply_entry(req, fs_mkdir(fs_of(req), &caller, parent, name, mode, &st), &st);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct fs_caller caller = caller_of(req);
    struct stat st;

    reply_entry(req, fs_symlink(fs_of(req), &caller, target, parent, name, &st), &st);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    struct fs_caller caller = caller_of(req);
    struct fs_file *file;
    struct stat st;
    int error;

    if (!S_ISREG(mode)) {
        fuse_reply_err(req, EPERM); /* devices, sockets and fifos have no bytes to store */
        return;
    }
    error = fs_create(fs_of(req), &caller, parent, name, mode, O_WRONLY | O_EXCL, &file, &st);
    if (!error) {
        error = fs_fsync(fs_of(req), &caller, file);
        fs_release(fs_of(req), file);
    }
    reply_entry(req, error, &st);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs_caller caller = caller_of(req);

    fuse_reply_err(req, fs_unlink(fs_of(req), &caller, parent, name));
}

static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fs_caller caller = caller_of(req);

    fuse_reply_err(req, fs_rmdir(fs_of(req), &caller, parent, name));
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
                      const char *new_name, unsigned flags)
{
    struct fs_caller caller = caller_of(req);

    fuse_reply_err(req, fs_rename(fs_of(req), &caller, parent, name, new_parent, new_name, flags));
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
    fuse_reply_err(req, EPERM); /* one object is one name */
}

/* Write-only handles bypass the page cache: nothing of what they write is read through them. */
static void set_handle(struct fuse_file_info *fi, struct fs_file *file, bool keep_cache)
{
    fi->fh = (uintptr_t)file;
    fi->direct_io = (fi->flags & O_ACCMODE) == O_WRONLY;
    fi->keep_cache = keep_cache;
}

static struct fs_file *file_of(const struct fuse_file_info *fi)
{
    return (struct fs_file *)(uintptr_t)fi->fh;
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *fi)
{
    struct fs_caller caller = caller_of(req);
    struct fs *fs = fs_of(req);
    struct fuse_entry_param entry;
    struct fs_file *file;
    struct stat st;
    int error = fs_create(fs, &caller, parent, name, mode, fi->flags, &file, &st);

    if (error) {
        fuse_reply_err(req, error);
        return;
    }
    set_handle(fi, file, false);
    entry_of(req, &st, &entry);
    if (fuse_reply_create(req, &entry, fi) != 0) {
        fs_release(fs, file);
        fs_forget(fs, st.st_ino, 1);
    }
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs_caller caller = caller_of(req);
    struct fs *fs = fs_of(req);
    struct fs_file *file;
    bool keep_cache = false;
    int error = fs_open(fs, &caller, ino, fi->flags, &file, &keep_cache);

    if (error) {
        fuse_reply_err(req, error);
        return;
    }
    set_handle(fi, file, keep_cache);
    if (!keep_cache) /* the size it remembers too; no pages: that could wait for ourselves */
        fuse_lowlevel_notify_inval_inode(session_of(req), ino, -1, 0);
    if (fuse_reply_open(req, fi) != 0)
        fs_release(fs, file);
}

static void reply_bytes(void *user, const struct iovec *iov, unsigned count)
{
    if (count)
        fuse_reply_iov(user, iov, count);
    else
        fuse_reply_buf(user, NULL, 0);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    struct fs_caller caller = caller_of(req);
    int error = fs_read(fs_of(req), &caller, file_of(fi), offset, size, reply_bytes, req);

    if (error)
        fuse_reply_err(req, error);
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
    struct fs_caller caller = caller_of(req);
    int error = fi->writepage ? fs_write_back(fs_of(req), &caller, file_of(fi), offset, data, size)
                              : fs_write(fs_of(req), &caller, file_of(fi), offset, data, size);

    if (error)
        fuse_reply_err(req, error);
    else
        fuse_reply_write(req, size);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs_caller caller = caller_of(req);

    fuse_reply_err(req, fs_flush(fs_of(req), &caller, file_of(fi)));
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    struct fs_caller caller = caller_of(req);

    fuse_reply_err(req, fs_fsync(fs_of(req), &caller, file_of(fi)));
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fs_release(fs_of(req), file_of(fi));
    fuse_reply_err(req, 0);
}

struct dir_handle {
    struct fs_dir *dir;
    bool was_read;
};

static struct dir_handle *dir_of(const struct fuse_file_info *fi)
{
    return (struct dir_handle *)(uintptr_t)fi->fh;
}

static void close_dir(struct fs *fs, struct dir_handle *handle)
{
    fs_closedir(fs, handle->dir);
    g_free(handle);
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct fs_caller caller = caller_of(req);
    struct dir_handle *handle;
    struct fs_dir *dir;
    int error = fs_opendir(fs_of(req), &caller, ino, &dir);

    if (error) {
        fuse_reply_err(req, error);
        return;
    }
    handle = g_new0(struct dir_handle, 1);
    handle->dir = dir;
    fi->fh = (uintptr_t)handle;
    if (fuse_reply_open(req, fi) != 0)
        close_dir(fs_of(req), handle);
}

/* Adds a name, with PLUS what is known of it, to SIZE bytes at BUFFER. Returns how many it takes;
 * more than SIZE: it does not fit. COUNTED: the inodes of which a lookup was counted. */
static size_t add_name(fuse_req_t req, struct fs_dir *dir, bool plus, char *buffer, size_t size,
                       const struct fs_entry *entry, off_t next, GArray *counted)
{
    struct stat st = {.st_ino = entry->ino, .st_mode = entry->type};
    struct fuse_entry_param param = {.attr = st};
    size_t need;

    if (!plus)
        return fuse_add_direntry(req, buffer, size, entry->name, &st, next);
    need = fuse_add_direntry_plus(req, NULL, 0, entry->name, NULL, 0);
    if (need > size)
        return need; /* before a lookup is counted */
    if (fs_dir_stat(fs_of(req), dir, entry, &st)) {
        entry_of(req, &st, &param);
        g_array_append_val(counted, param.ino);
    }
    return fuse_add_direntry_plus(req, buffer, size, entry->name, &param, next);
}

/* The kernel reads one handle's directory a request at a time. */
static void read_dir(fuse_req_t req, bool plus, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
    struct fs_caller caller = caller_of(req);
    struct dir_handle *handle = dir_of(fi);
    struct fs *fs = fs_of(req);
    g_autofree char *buffer = g_malloc(size);
    g_autoptr(GArray) counted = g_array_new(FALSE, FALSE, sizeof(fuse_ino_t));
    struct fs_entry entry;
    size_t used = 0;
    int error = 0;

    if (offset == 0 && handle->was_read)
        error = fs_rewinddir(fs, &caller, handle->dir);
    handle->was_read = true;
    if (error) {
        fuse_reply_err(req, error);
        return;
    }
    while (fs_dir_entry(handle->dir, offset, &entry)) {
        size_t need =
            add_name(req, handle->dir, plus, buffer + used, size - used, &entry, ++offset, counted);

        if (need > size - used)
            break;
        used += need;
    }
    if (fuse_reply_buf(req, buffer, used) != 0) /* nobody hears it: no lookup was made */
        for (guint i = 0; i < counted->len; i++)
            fs_forget(fs, g_array_index(counted, fuse_ino_t, i), 1);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                       struct fuse_file_info *fi)
{
    read_dir(req, false, size, offset, fi);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                           struct fuse_file_info *fi)
{
    read_dir(req, true, size, offset, fi);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    close_dir(fs_of(req), dir_of(fi));
    fuse_reply_err(req, 0);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
    fuse_reply_err(req, 0); /* names are in the store before their calls return */
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct statvfs st;

    fs_statfs(fs_of(req), &st);
    fuse_reply_statfs(req, &st);
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
                        size_t size, int flags)
{
    struct fs_caller caller = caller_of(req);

    fuse_reply_err(req, fs_setxattr(fs_of(req), &caller, ino, name, value, size, flags));
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    struct fs_caller caller = caller_of(req);

    fuse_reply_err(req, fs_removexattr(fs_of(req), &caller, ino, name));
}

/* SIZE 0 asks how long the answer is. */
static void reply_xattr(fuse_req_t req, int error, GBytes *bytes, size_t size)
{
    gsize length = 0;
    const void *data = bytes ? g_bytes_get_data(bytes, &length) : NULL;

    if (error)
        fuse_reply_err(req, error);
    else if (size == 0)
        fuse_reply_xattr(req, length);
    else if (length > size)
        fuse_reply_err(req, ERANGE);
    else
        fuse_reply_buf(req, data, length);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    struct fs_caller caller = caller_of(req);
    g_autoptr(GBytes) value = NULL;
    int error = fs_getxattr(fs_of(req), &caller, ino, name, &value);

    reply_xattr(req, error, value, size);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    struct fs_caller caller = caller_of(req);
    g_autoptr(GBytes) names = NULL;
    int error = fs_listxattr(fs_of(req), &caller, ino, &names);

    reply_xattr(req, error, names, size);
}

const struct fuse_lowlevel_ops fuse_operations = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .readlink = op_readlink,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .symlink = op_symlink,
    .rename = op_rename,
    .link = op_link,
    .create = op_create,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .flush = op_flush,
    .fsync = op_fsync,
    .release = op_release,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .releasedir = op_releasedir,
    .fsyncdir = op_fsyncdir,
    .statfs = op_statfs,
    .setxattr = op_setxattr,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .removexattr = op_removexattr,
};
