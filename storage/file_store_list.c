/* Listing in the byte order of keys. A directory's names are sorted as the keys below it are, with
 * a '/' behind ("a-b" comes before "a/b"). At most NAMES_KEPT are in memory: of a larger directory
 * the smallest, and it is read once more for the next ones. What a page did not show of them waits
 * for whoever continues with the page's token, so that a directory of a million files is read a few
 * times and not once a page. */
#include "storage/file_store.h"

#include "config/autofd.h"
#include "config/error.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>

#define NAMES_KEPT (512 * 1024)
#define RESTS_KEPT 4
#define CHUNK      (16 * 1024) /* of names */
#define REST_WORTH 1024        /* fewer names are read again rather than kept */

/* The names of one directory behind a full page. */
struct listing_rest {
    char *listing; /* which one, and its token */
    char *base;
    GPtrArray *names; /* in CHUNK, sorted; those from NEXT on are to come */
    GStringChunk *chunk;
    unsigned next;
    bool more; /* and others behind them */
};

struct walk {
    struct file_store *store;
    struct store_call *call;
    const char *after; /* keys up to this one were listed before */
    bool after_prefix; /* and all that begin with it */
    unsigned limit, count;
    char *last;                /* the token that continues behind what is on the page */
    bool probe, found;         /* only: is there any key? */
    struct listing_rest *rest; /* of the page before; then of this one */
    GError **error;
};

static bool walk_directory(struct walk *walk, int dir_fd, const char *base, const char *filter);

static void rest_free(void *data)
{
    struct listing_rest *rest = data;

    if (!rest)
        return;
    g_free(rest->listing);
    g_free(rest->base);
    g_ptr_array_unref(rest->names);
    g_string_chunk_free(rest->chunk);
    g_free(rest);
}

void file_store_forget_rests(struct file_store *store)
{
    g_queue_clear_full(&store->rests, rest_free);
}

static char *name_listing(const struct store_call *call, const char *token)
{
    return g_strdup_printf("%d%s\n%s", call->delimiter, call->key, token);
}

/* What the page that handed out CALL's token left; NULL: nothing. It is the caller's. */
static struct listing_rest *take_rest(struct file_store *store, const struct store_call *call)
{
    g_autofree char *listing = name_listing(call, call->token);
    struct listing_rest *found = NULL;

    pthread_mutex_lock(&store->rests_lock);
    for (GList *link = store->rests.head; link && !found; link = link->next) {
        if (!g_str_equal(((struct listing_rest *)link->data)->listing, listing))
            continue;
        found = link->data;
        g_queue_delete_link(&store->rests, link);
        break;
    }
    pthread_mutex_unlock(&store->rests_lock);
    return found;
}

static void leave_rest(struct file_store *store, const struct store_call *call,
                       struct listing_rest *rest)
{
    struct listing_rest *oldest = NULL;

    rest->listing = name_listing(call, call->next_token);
    pthread_mutex_lock(&store->rests_lock);
    g_queue_push_head(&store->rests, rest);
    if (store->rests.length > RESTS_KEPT)
        oldest = g_queue_pop_tail(&store->rests);
    pthread_mutex_unlock(&store->rests_lock);
    rest_free(oldest);
}

static bool is_listed_before(const struct walk *walk, const char *key)
{
    if (!walk->after)
        return false;
    if (walk->after_prefix && g_str_has_prefix(key, walk->after))
        return true;
    return strcmp(key, walk->after) <= 0;
}

/* No key below PREFIX, which ends in '/', is wanted. */
static bool is_passed(const struct walk *walk, const char *prefix)
{
    if (!walk->after || strcmp(prefix, walk->after) > 0)
        return walk->after && walk->after_prefix && g_str_has_prefix(prefix, walk->after);
    if (walk->after_prefix && g_str_equal(prefix, walk->after))
        return true;
    return !g_str_has_prefix(walk->after, prefix);
}

/* Room for one more on the page; else the page ends here. */
static bool has_room(struct walk *walk)
{
    if (walk->count < walk->limit)
        return true;
    walk->call->next_token = g_steal_pointer(&walk->last);
    return false;
}

static bool add_object(struct walk *walk, int dir_fd, const char *name, const char *key)
{
    g_autofree char *file = file_store_encode_segment(name);
    struct store_object *object;
    struct stat st;

    if (fstatat(dir_fd, file, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
        return true; /* deleted meanwhile */
    if (walk->probe) {
        walk->found = true;
        return false;
    }
    if (!has_room(walk))
        return false;
    object = g_new0(struct store_object, 1);
    file_store_describe(object, key, &st);
    g_ptr_array_add(walk->call->objects, object);
    walk->count++;
    g_free(walk->last);
    walk->last = g_strconcat("k", key, NULL);
    return true;
}

static int open_below(int dir_fd, const char *segment)
{
    g_autofree char *name = file_store_encode_segment(segment);

    return openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static bool add_prefix(struct walk *walk, int dir_fd, const char *prefix)
{
    struct walk probe = {.store = walk->store,
                         .call = walk->call,
                         .after = walk->after,
                         .after_prefix = walk->after_prefix,
                         .probe = true,
                         .error = walk->error};

    walk_directory(&probe, dir_fd, prefix, "");
    if (!probe.found)
        return !*walk->error;
    if (!has_room(walk))
        return false;
    g_ptr_array_add(walk->call->prefixes, g_strdup(prefix));
    walk->count++;
    g_free(walk->last);
    walk->last = g_strconcat("p", prefix, NULL);
    return true;
}

/* NAME is a decoded segment, with '/' behind it when it is a directory. */
static bool walk_entry(struct walk *walk, int dir_fd, const char *base, char *name)
{
    size_t length = strlen(name);
    bool is_directory = length && name[length - 1] == '/';
    g_autofree char *key = g_strconcat(base, name, NULL);
    g_auto(fd_t) below = -1;

    if (!is_directory)
        return add_object(walk, dir_fd, name, key);
    if (strlen(key) >= FILE_STORE_KEY_MAX)
        return true;
    name[length - 1] = '\0';
    below = open_below(dir_fd, name);
    if (below < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ||
               file_store_error(walk->error, errno, "list", key);
    if (walk->call->delimiter && !walk->probe)
        return add_prefix(walk, below, key);
    return walk_directory(walk, below, key, "");
}

static bool is_kind(int dir_fd, const struct dirent *entry, bool *is_directory)
{
    unsigned char type = entry->d_type;
    struct stat st;

    if (type == DT_UNKNOWN && fstatat(dir_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        type = S_ISDIR(st.st_mode) ? DT_DIR : S_ISREG(st.st_mode) ? DT_REG : DT_LNK;
    *is_directory = type == DT_DIR;
    return type == DT_DIR || type == DT_REG;
}

/* The sort name of an entry that may be wanted behind BOUND, or NULL. */
static char *wanted_name(struct walk *walk, int dir_fd, const struct dirent *entry,
                         const char *base, const char *filter, const char *bound)
{
    g_autofree char *segment = NULL;
    g_autofree char *name = NULL;
    g_autofree char *key = NULL;
    bool is_directory;

    if (g_str_equal(entry->d_name, ".") || g_str_equal(entry->d_name, "..") ||
        g_str_has_prefix(entry->d_name, ".dstack-") || !is_kind(dir_fd, entry, &is_directory))
        return NULL;
    segment = file_store_decode_segment(entry->d_name);
    if (!segment)
        return NULL;
    name = g_strconcat(segment, is_directory ? "/" : NULL, NULL);
    if (!g_str_has_prefix(name, filter) || (bound && strcmp(name, bound) <= 0))
        return NULL;
    if (!walk->after)
        return g_steal_pointer(&name);
    key = g_strconcat(base, name, NULL);
    if (is_directory ? is_passed(walk, key) : is_listed_before(walk, key))
        return NULL;
    return g_steal_pointer(&name);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Those beyond COUNT are let go. */
static void keep_smallest(struct listing_rest *rest, unsigned count)
{
    GStringChunk *chunk;

    g_ptr_array_sort(rest->names, compare_names);
    if (rest->names->len <= count)
        return;
    rest->more = true;
    g_ptr_array_set_size(rest->names, (int)count);
    chunk = g_string_chunk_new(CHUNK);
    for (unsigned i = 0; i < count; i++)
        rest->names->pdata[i] = g_string_chunk_insert(chunk, rest->names->pdata[i]);
    g_string_chunk_free(rest->chunk);
    rest->chunk = chunk;
}

static DIR *open_again(int dir_fd)
{
    g_auto(fd_t) fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (dir)
        fd_steal(&fd);
    return dir;
}

/* The smallest names behind BOUND into REST. */
static void read_names(struct walk *walk, int dir_fd, struct listing_rest *rest, const char *filter,
                       const char *bound)
{
    bool whole_pages = !walk->probe && walk->limit >= REST_WORTH;
    unsigned keep = walk->probe ? 16 : whole_pages ? NAMES_KEPT : walk->limit - walk->count + 1;
    DIR *dir = open_again(dir_fd);
    struct dirent *entry;

    if (!dir && errno != ENOENT)
        file_store_error(walk->error, errno, "list",
                         *rest->base ? rest->base : walk->store->base.url);
    while (dir && (entry = readdir(dir))) {
        g_autofree char *name = wanted_name(walk, dir_fd, entry, rest->base, filter, bound);

        if (name)
            g_ptr_array_add(rest->names, g_string_chunk_insert(rest->chunk, name));
        if (rest->names->len >= 2 * keep + 1024)
            keep_smallest(rest, keep);
    }
    if (dir)
        closedir(dir);
    keep_smallest(rest, keep);
}

/* The next names of a directory: what the page before has left of them, or read anew. */
static struct listing_rest *next_names(struct walk *walk, int dir_fd, const char *base,
                                       const char *filter, const char *bound)
{
    struct listing_rest *rest = walk->rest;

    if (rest && !walk->probe && g_str_equal(rest->base, base)) {
        walk->rest = NULL;
        g_clear_pointer(&rest->listing, g_free); /* this page's from now on */
        return rest;
    }
    rest = g_new0(struct listing_rest, 1);
    rest->base = g_strdup(base);
    rest->names = g_ptr_array_new();
    rest->chunk = g_string_chunk_new(CHUNK);
    read_names(walk, dir_fd, rest, filter, bound);
    return rest;
}

/* The page ended within NAMES, before the one at NEXT. The innermost directory's are kept. */
static void keep_rest(struct walk *walk, struct listing_rest *names)
{
    if (!walk->call->next_token || walk->probe || walk->rest ||
        names->names->len - names->next < REST_WORTH)
        rest_free(names);
    else
        walk->rest = names;
}

/* False when the walk is over: the page is full, the probe has found a key, or an error. */
static bool walk_directory(struct walk *walk, int dir_fd, const char *base, const char *filter)
{
    g_autofree char *bound = NULL;
    bool more = true;

    while (more) {
        struct listing_rest *names = next_names(walk, dir_fd, base, filter, bound);

        more = names->more && names->names->len;
        if (more) {
            g_free(bound);
            bound = g_strdup(names->names->pdata[names->names->len - 1]);
        }
        for (; names->next < names->names->len; names->next++) {
            /* A copy: walk_entry changes it, and a full page leaves it for the next one. */
            g_autofree char *name = g_strdup(names->names->pdata[names->next]);

            if (store_call_is_cancelled(walk->call))
                error_set(walk->error, ECANCELED, "list %s: cancelled", walk->call->key);
            if (*walk->error || !walk_entry(walk, dir_fd, base, name)) {
                keep_rest(walk, names);
                return false;
            }
        }
        rest_free(names);
        if (*walk->error)
            return false;
    }
    return true;
}

/* The directory that the prefix's segments before the last '/' name; -1: nothing is below it. */
static int open_base(struct file_store *store, const char *base)
{
    g_auto(fd_t) dir = openat(store->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    g_auto(GStrv) segments = g_strsplit(base, "/", -1);
    unsigned count = g_strv_length(segments);

    /* BASE is empty or ends in '/': the last segment is none. */
    for (unsigned i = 0; dir >= 0 && i + 1 < count; i++) {
        int next = open_below(dir, segments[i]);

        close(dir);
        dir = next;
    }
    return fd_steal(&dir);
}

void file_store_list(struct file_store *store, struct store_call *call, GError **error)
{
    struct walk walk = {.store = store, .call = call, .limit = FILE_STORE_LIST_MAX, .error = error};
    const char *slash = strrchr(call->key, '/');
    g_autofree char *base =
        slash ? g_strndup(call->key, (size_t)(slash - call->key) + 1) : g_strdup("");
    g_auto(fd_t) dir = open_base(store, base);

    if (dir < 0 && (errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == ENAMETOOLONG))
        return;
    if (dir < 0) {
        file_store_error(error, errno, "list", call->key);
        return;
    }
    if (call->limit)
        walk.limit = MIN(call->limit, FILE_STORE_LIST_MAX);
    if (call->token && *call->token) {
        walk.after = call->token + 1;
        walk.after_prefix = call->token[0] == 'p';
        walk.rest = take_rest(store, call);
    } else if (call->start_after && *call->start_after) {
        walk.after = call->start_after;
    }
    walk_directory(&walk, dir, base, slash ? slash + 1 : call->key);
    if (walk.rest && call->next_token && !walk.rest->listing)
        leave_rest(store, call, walk.rest);
    else
        rest_free(walk.rest);
    g_free(walk.last);
}
