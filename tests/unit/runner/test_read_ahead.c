/* What is read ahead of an earlier attempt's files: the newest, as far as the memory goes. */
#include "runner/job/read_ahead.h"
#include "runner/machine.h"
#include <criterion/criterion.h>
#include <glib/gstdio.h>
#include <sys/stat.h>
#include <utime.h>

static char *top;

static void make(const char *name, size_t size, time_t mtime)
{
    g_autofree char *path = g_build_filename(top, name, NULL);
    g_autofree char *data = g_strnfill(size, 'x');
    struct utimbuf times = {mtime, mtime};

    cr_assert(g_file_set_contents(path, data, (gssize)size, NULL));
    cr_assert_eq(utime(path, &times), 0);
}

static uint64_t ahead(uint64_t limit_bytes, int stop)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new();

    g_ptr_array_add(paths, top);
    g_ptr_array_add(paths, (char *)"/no/such/directory");
    return read_ahead_newest(paths, limit_bytes, &stop);
}

Test(read_ahead, the_newest_first_and_no_more_than_fits)
{
    g_autofree char *below = NULL, *link = NULL;

    top = g_dir_make_tmp("dstack-ahead-XXXXXX", NULL);
    below = g_build_filename(top, "below", NULL);
    link = g_build_filename(top, "link", NULL);
    cr_assert_eq(g_mkdir(below, 0700), 0);
    cr_assert_eq(symlink("/dev/zero", link), 0);
    make("old", 10, 1000);
    make("below/new", 3000000, 3000);
    make("middle", 500, 2000);
    cr_assert_eq(ahead(10000000, 0), 3000510);
    cr_assert_eq(ahead(3000500, 0), 3000500);
    cr_assert_eq(ahead(3000100, 0), 3000000);
    cr_assert_eq(ahead(1000, 0), 0);
    cr_assert_eq(ahead(10000000, 1), 0);
    cr_assert(tree_remove(top, NULL));
    g_free(top);
}
