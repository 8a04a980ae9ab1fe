/* What the kernel's part of any FUSE filesystem costs: one file, whose writes are thrown away and
 * whose reads are answered out of the same mebibyte. It asks the kernel for what fusefs asks for.
 *   null_fuse MOUNTPOINT BYTES    MOUNTPOINT/file, of BYTES, until it is unmounted or by SIGTERM
 */
#define FUSE_USE_VERSION 34

#include <errno.h>
#include <fuse_lowlevel.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUEST_BYTES (1u << 20)
#define FILE_INO      2
#define KEPT_S        3600.0 /* nothing changes */

static uint64_t file_bytes;
static char bytes[REQUEST_BYTES];

static struct stat attributes(fuse_ino_t ino)
{
    if (ino == FILE_INO)
        return (struct stat){
            .st_ino = ino, .st_mode = S_IFREG | 0644, .st_nlink = 1, .st_size = (off_t)file_bytes};
    return (struct stat){.st_ino = ino, .st_mode = S_IFDIR | 0755, .st_nlink = 2};
}

static void on_init(void *user, struct fuse_conn_info *conn)
{
    conn->max_read = conn->max_write = REQUEST_BYTES;
    conn->max_readahead = 4 * REQUEST_BYTES;
    conn->max_background = 64;
    conn->congestion_threshold = 48;
    conn->want |= conn->capable & (FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_ASYNC_READ);
    conn->want &= ~(unsigned)FUSE_CAP_WRITEBACK_CACHE;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param entry = {.ino = FILE_INO,
                                     .attr_timeout = KEPT_S,
                                     .entry_timeout = KEPT_S,
                                     .attr = attributes(FILE_INO)};

    if (strcmp(name, "file") == 0)
        fuse_reply_entry(req, &entry);
    else
        fuse_reply_err(req, ENOENT);
}

static void on_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat st = attributes(ino);

    fuse_reply_attr(req, &st, KEPT_S);
}

static void on_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    fi->direct_io = (fi->flags & O_ACCMODE) == O_WRONLY;
    fuse_reply_open(req, fi);
}

static void on_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
                    struct fuse_file_info *fi)
{
    uint64_t left = (uint64_t)offset < file_bytes ? file_bytes - (uint64_t)offset : 0;

    if (size > left)
        size = left;
    fuse_reply_buf(req, bytes, size < sizeof(bytes) ? size : sizeof(bytes));
}

static void on_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t offset,
                     struct fuse_file_info *fi)
{
    fuse_reply_write(req, size);
}

static void on_fsync(fuse_req_t req, fuse_ino_t ino, int is_data, struct fuse_file_info *fi)
{
    fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops operations = {.init = on_init,
                                                    .lookup = on_lookup,
                                                    .getattr = on_getattr,
                                                    .open = on_open,
                                                    .read = on_read,
                                                    .write = on_write,
                                                    .fsync = on_fsync};

int main(int argc, char **argv)
{
    struct fuse_loop_config config = {.clone_fd = 1, .max_idle_threads = 16};
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    struct fuse_session *session;
    int rc = 1;

    if (argc != 3 || (file_bytes = strtoull(argv[2], NULL, 10)) == 0) {
        fprintf(stderr, "usage: null_fuse MOUNTPOINT BYTES\n");
        return 2;
    }
    memset(bytes, 1, sizeof(bytes)); /* memory of its own, not the kernel's page of zeros */
    fuse_opt_add_arg(&args, "null_fuse");
    fuse_opt_add_arg(&args, "-omax_read=1048576");
    session = fuse_session_new(&args, &operations, sizeof(operations), NULL);
    fuse_opt_free_args(&args);
    if (session && fuse_set_signal_handlers(session) == 0 &&
        fuse_session_mount(session, argv[1]) == 0) {
        rc = fuse_session_loop_mt(session, &config) < 0;
        fuse_session_unmount(session);
    }
    if (session)
        fuse_session_destroy(session);
    return rc;
}
