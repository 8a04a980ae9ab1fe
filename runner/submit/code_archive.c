/* Snapshots as tar with zstd: the only file that includes libarchive. */
#include "config/autofd.h"
#include "config/error.h"
#include "config/log.h"
#include "runner/submit/code.h"
#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 256 * 1024 };

/* Else libarchive translates names from the locale's charset, and refuses those it cannot: every
 * one that is not ASCII where no locale is set. */
#define NAMES_AS_THEY_ARE "hdrcharset=BINARY"

typedef struct archive ArchiveWrite, ArchiveRead;
typedef struct archive_entry ArchiveEntry;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ArchiveWrite, archive_write_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ArchiveRead, archive_read_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(ArchiveEntry, archive_entry_free)

/* libarchive says "Write failed" of a full disk, and keeps the reason as a number. */
static bool archive_failed(struct archive *archive, const char *what, const char *path,
                           GError **error)
{
    int code = archive_errno(archive) > 0 ? archive_errno(archive) : EIO;

    if (code == ENOSPC || code == EDQUOT)
        return error_set_errno(error, code, "%s %s", what, path);
    return error_set(error, code, "%s %s: %s", what, path, archive_error_string(archive));
}

/* The header promised SIZE bytes: a file that shrank meanwhile is filled with zeros by libarchive,
 * so it is an error here; one that grew is cut. */
static bool pack_content(struct archive *archive, const char *path, int fd, int64_t size,
                         GError **error)
{
    g_autofree char *block = g_malloc(BLOCK);

    while (size > 0) {
        ssize_t got = read(fd, block, (size_t)MIN(size, (int64_t)BLOCK));

        if (got <= 0)
            return error_set_errno(error, got < 0 ? errno : EAGAIN, "read %s (did it change?)",
                                   path);
        if (archive_write_data(archive, block, (size_t)got) != got)
            return archive_failed(archive, "pack", path, error);
        size -= got;
    }
    return true;
}

/* Where a symlink at PATH with TARGET leads, counted in levels: never above the tree's top. */
static bool symlink_stays(const char *path, const char *target)
{
    g_autofree char *parent = g_path_get_dirname(path);
    g_autofree char *whole = g_strconcat(parent, "/", target, NULL);
    g_auto(GStrv) parts = g_strsplit(whole, "/", -1);
    int depth = 0;

    if (g_path_is_absolute(target))
        return false;
    for (char **part = parts; *part; part++) {
        if (strcmp(*part, "..") == 0)
            depth--;
        else if (**part && strcmp(*part, ".") != 0)
            depth++;
        if (depth < 0)
            return false;
    }
    return true;
}

static bool pack_file(struct archive *archive, const char *dir, const char *name, GError **error)
{
    g_autoptr(ArchiveEntry) entry = archive_entry_new();
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autofree char *target = NULL;
    g_auto(fd_t) fd = -1;
    struct stat st;

    if (lstat(path, &st) != 0) /* tracked, but deleted from the working tree */
        return errno == ENOENT || errno == ENOTDIR ||
               error_set_errno(error, errno, "look at %s", path);
    if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
        return true;
    archive_entry_set_pathname(entry, name);
    archive_entry_set_perm(entry, st.st_mode & 0777);
    archive_entry_set_mtime(entry, st.st_mtime, 0);
    if (S_ISLNK(st.st_mode)) {
        target = g_file_read_link(path, error);
        if (!target)
            return false;
        if (!symlink_stays(name, target)) {
            log_warning("%s leads out of the code and is left out of the snapshot", path);
            return true;
        }
        archive_entry_set_filetype(entry, AE_IFLNK);
        archive_entry_set_symlink(entry, target);
    } else {
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 || fstat(fd, &st) != 0)
            return error_set_errno(error, errno, "open %s", path);
        archive_entry_set_filetype(entry, AE_IFREG);
        archive_entry_set_size(entry, st.st_size);
    }
    if (archive_write_header(archive, entry) != ARCHIVE_OK)
        return archive_failed(archive, "pack", path, error);
    return fd < 0 || pack_content(archive, path, fd, st.st_size, error);
}

bool code_pack(const char *dir, GPtrArray *files, int fd, GError **error)
{
    g_autoptr(ArchiveWrite) archive = archive_write_new();

    if (archive_write_set_format_pax_restricted(archive) != ARCHIVE_OK ||
        archive_write_set_options(archive, NAMES_AS_THEY_ARE) != ARCHIVE_OK ||
        archive_write_add_filter_zstd(archive) != ARCHIVE_OK ||
        archive_write_open_fd(archive, fd) != ARCHIVE_OK)
        return archive_failed(archive, "make a snapshot of", dir, error);
    for (guint i = 0; i < files->len; i++)
        if (!pack_file(archive, dir, files->pdata[i], error))
            return false;
    if (archive_write_close(archive) != ARCHIVE_OK)
        return archive_failed(archive, "make a snapshot of", dir, error);
    return true;
}

/* --- extraction --- */

static bool entry_is_safe(struct archive_entry *entry, GError **error)
{
    const char *path = archive_entry_pathname(entry);
    mode_t type = archive_entry_filetype(entry);

    if (!path || !*path)
        return error_set(error, EINVAL, "the snapshot holds a file without a name");
    if (archive_entry_hardlink(entry) || (type != AE_IFREG && type != AE_IFLNK && type != AE_IFDIR))
        return error_set(error, EINVAL, "the snapshot holds %s, which is no file of code", path);
    if (type == AE_IFLNK &&
        (!archive_entry_symlink(entry) || !symlink_stays(path, archive_entry_symlink(entry))))
        return error_set(error, EINVAL, "the snapshot's symlink %s leads out of the code", path);
    return true;
}

/* libarchive resolves relative to the process's directory: make the names absolute, after it was
 * checked that they are relative and do not climb. */
static bool place_below(struct archive_entry *entry, const char *dir, GError **error)
{
    const char *path = archive_entry_pathname(entry);
    g_auto(GStrv) parts = g_strsplit(path, "/", -1);
    g_autofree char *whole = g_build_filename(dir, path, NULL);

    if (g_path_is_absolute(path) || g_strv_contains((const char *const *)parts, ".."))
        return error_set(error, EINVAL, "the snapshot's %s would leave the code directory", path);
    archive_entry_set_pathname(entry, whole);
    return true;
}

static bool copy_content(struct archive *from, struct archive *to, const char *path, GError **error)
{
    const void *block;
    size_t size;
    la_int64_t offset;
    int result;

    while ((result = archive_read_data_block(from, &block, &size, &offset)) == ARCHIVE_OK)
        if (archive_write_data_block(to, block, size, offset) < ARCHIVE_OK)
            return archive_failed(to, "extract", path, error);
    return result == ARCHIVE_EOF || archive_failed(from, "extract", path, error);
}

/* The tree's own parents must not be symlinks for SECURE_SYMLINKS: DIR is resolved first. */
bool code_unpack(int fd, const char *dir, GError **error)
{
    g_autoptr(ArchiveRead) from = archive_read_new();
    g_autoptr(ArchiveWrite) to = archive_write_disk_new();
    g_autofree char *top = realpath(dir, NULL);
    struct archive_entry *entry;
    int result;

    if (!top || lseek(fd, 0, SEEK_SET) != 0)
        return error_set_errno(error, errno, "extract code into %s", dir);
    archive_write_disk_set_options(to, ARCHIVE_EXTRACT_PERM | ARCHIVE_EXTRACT_TIME |
                                           ARCHIVE_EXTRACT_SECURE_SYMLINKS |
                                           ARCHIVE_EXTRACT_SECURE_NODOTDOT);
    if (archive_read_support_format_tar(from) != ARCHIVE_OK ||
        archive_read_support_filter_zstd(from) != ARCHIVE_OK ||
        archive_read_open_fd(from, fd, BLOCK) != ARCHIVE_OK)
        return archive_failed(from, "open", "the snapshot", error);
    while ((result = archive_read_next_header(from, &entry)) == ARCHIVE_OK) {
        if (!entry_is_safe(entry, error) || !place_below(entry, top, error))
            return false;
        if (archive_write_header(to, entry) != ARCHIVE_OK)
            return archive_failed(to, "extract", archive_entry_pathname(entry), error);
        if (!copy_content(from, to, archive_entry_pathname(entry), error))
            return false;
        if (archive_write_finish_entry(to) != ARCHIVE_OK)
            return archive_failed(to, "extract", archive_entry_pathname(entry), error);
    }
    return result == ARCHIVE_EOF || archive_failed(from, "read", "the snapshot", error);
}
