/* Names: lookup, attributes, making. remove.c takes them away, rename.c moves them. */
#include "fusefs/fs_internal.h"

#include <string.h>

#define NAME_BYTES_MAX 255
#define LEARN_PAGES    8 /* of a directory's listing, before single names are asked for instead */

bool name_is_hidden(struct fs *fs, uint64_t parent, const char *name)
{
    return parent == FS_ROOT && g_str_has_prefix(name, ROOT_HIDDEN);
}

char *child_key(struct fs *fs, struct inode *parent, const char *name)
{
    g_autofree char *key = inode_key(fs, parent);

    return g_strconcat(key, name, NULL);
}

/* What a name may be, before the store is asked. */
enum kind { KIND_UNKNOWN, KIND_FILE, KIND_DIRECTORY };

/* AHEAD's requests go out behind CALL's. */
static int ask(struct fs *fs, struct fs_caller *caller, struct store_call *call,
               struct lookahead *ahead)
{
    struct waiter *waiter = start_call(fs, call);

    lookahead_start(fs, ahead);
    return finish_call(fs, caller, call, waiter);
}

/* A directory's marker object, where it has one: *OBJECT may be NULL. */
static int probe_directory(struct fs *fs, struct fs_caller *caller, const char *key,
                           struct store_call **object, struct lookahead *ahead)
{
    g_autofree char *marker = g_strconcat(key, "/", NULL);
    g_autoptr(StoreCall) head = store_call_new(STORE_HEAD, marker);
    int error = ask(fs, caller, head, ahead);

    if (!error)
        *object = g_steal_pointer(&head);
    return error == ENOENT ? 0 : error;
}

/* Asks for the object KEY and, if it may be a directory, for anything below KEY/ at the same time.
 */
static int probe(struct fs *fs, struct fs_caller *caller, const char *key, enum kind *kind,
                 struct store_call **object, struct lookahead *ahead)
{
    g_autofree char *prefix = g_strconcat(key, "/", NULL);
    g_autoptr(StoreCall) head = store_call_new(STORE_HEAD, key);
    g_autoptr(StoreCall) list = store_call_new(STORE_LIST, prefix);
    bool asked = *kind == KIND_UNKNOWN;
    struct waiter *waiter = NULL;
    int error, list_error = 0;

    if (*kind == KIND_DIRECTORY)
        return probe_directory(fs, caller, key, object, ahead);
    list->limit = 1;
    if (asked)
        waiter = start_call(fs, list);
    error = ask(fs, caller, head, ahead);
    if (error == 0 && asked)
        store_cancel(fs->store, list); /* nobody wants to know any more */
    if (asked)
        list_error = finish_call(fs, caller, list, waiter);
    if (error == 0) {
        *kind = KIND_FILE;
        *object = g_steal_pointer(&head);
    }
    if (error != ENOENT || !asked)
        return error;
    if (list_error)
        return list_error;
    if (!list->objects->len && !(list->prefixes && list->prefixes->len))
        return ENOENT;
    *kind = KIND_DIRECTORY;
    return probe_directory(fs, caller, key, object, NULL);
}

int name_adopt(struct fs *fs, struct inode *parent, struct question *question, bool is_dir,
               const struct store_object *object, struct inode **child)
{
    mode_t mode =
        is_dir ? S_IFDIR | (0777 & ~fs->options.umask) : S_IFREG | (0666 & ~fs->options.umask);
    int error = 0;

    pthread_mutex_lock(&fs->lock);
    question_end(parent, question);
    if (parent->removed && parent != fs->root)
        error = ENOENT;
    else if (question->moot) /* there is an inode, or was one: it knows better than OBJECT */
        error = EAGAIN;
    else
        *child = inode_new(fs, parent, question->name, mode);
    pthread_mutex_unlock(&fs->lock);
    if (!error && object)
        inode_load(fs, *child, object, question->asked_ns, 0);
    else if (!error)
        inode_note_prefix(*child);
    return error;
}

/* A name that is no inode yet: asks the store. */
static int find_in_store(struct fs *fs, struct fs_caller *caller, struct inode *parent,
                         struct question *question, enum kind kind, struct lookahead *ahead,
                         struct inode **child)
{
    g_autofree char *key = child_key(fs, parent, question->name);
    g_autoptr(StoreCall) call = NULL;
    int error = probe(fs, caller, key, &kind, &call, ahead);

    if (!error)
        return name_adopt(fs, parent, question, kind == KIND_DIRECTORY, call ? &call->object : NULL,
                          child);
    question_drop(fs, parent, question);
    return error;
}

void forget_name(struct fs *fs, struct inode *inode)
{
    pthread_mutex_lock(&fs->lock);
    if (inode->parent)
        touch_directory(inode->parent);
    inode_detach(inode);
    pthread_mutex_unlock(&fs->lock);
    pthread_mutex_lock(&inode->lock);
    inode->vanished = true;
    journal_clean(fs, inode);
    pthread_mutex_unlock(&inode->lock);
    leave_dirty_list(fs, inode);
}

void forget_version(struct fs *fs, struct inode *inode)
{
    pthread_mutex_lock(&fs->lock);
    if (inode->parent) {
        struct inode *parent = inode->parent;
        struct record *record = record_new_plain(inode->name, 0);

        inode_detach(inode);
        names_add(fs, parent, record);
    }
    pthread_mutex_unlock(&fs->lock);
    pthread_mutex_lock(&inode->lock);
    inode->vanished = true;
    pthread_mutex_unlock(&inode->lock);
}

/* What is known of NAME without asking the store: its inode (pinned), or (ENOENT) that there is
 * none. Else its kind, and QUESTION has begun. */
static int find_here(struct fs *fs, struct inode *parent, const char *name, struct inode **child,
                     enum kind *kind, struct question *question)
{
    bool is_known = fs_is_authority(fs);
    struct record *record;
    int error = 0;

    *kind = KIND_UNKNOWN;
    pthread_mutex_lock(&fs->lock);
    *child = inode_child(parent, name);
    is_known = is_known && parent->names;
    record = is_known ? names_find(parent, name) : NULL;
    if (*child)
        (*child)->pins++;
    else if (record && record->flags & RECORD_FULL)
        *child = inode_from_record(fs, parent, names_steal(fs, parent, name), now_ms());
    else if (record)
        *kind = S_ISDIR(record->mode) ? KIND_DIRECTORY : KIND_FILE;
    else if (is_known)
        error = ENOENT;
    if (!*child && !error)
        question_begin(fs, parent, question, name);
    pthread_mutex_unlock(&fs->lock);
    return error;
}

/* INODE (pinned, given up unless 0 is returned) as it is in the store now. */
static int refresh_child(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    int error = inode_refresh(fs, caller, inode);

    if (error)
        inode_unpin(fs, inode);
    return error;
}

static int find_below(struct fs *fs, struct fs_caller *caller, struct inode *parent,
                      const char *name, struct inode **child)
{
    int error = fs_is_authority(fs) ? dir_learn(fs, caller, parent, LEARN_PAGES) : 0;

    if (error)
        return error;
    do {
        struct question question;
        struct lookahead *ahead;
        enum kind kind;

        if (is_interrupted(caller))
            return EINTR;
        error = find_here(fs, parent, name, child, &kind, &question);
        if (error)
            return error;
        if (*child) {
            error = refresh_child(fs, caller, *child);
            if ((error != ENOENT && error != ESTALE) || fs_is_authority(fs))
                return error;
            error = EAGAIN; /* it has lost its name: look again */
            continue;
        }
        ahead = lookahead_new(fs, parent, name);
        error = find_in_store(fs, caller, parent, &question, kind, ahead, child);
        lookahead_end(fs, caller, ahead);
    } while (error == EAGAIN);
    return error;
}

int find_child(struct fs *fs, struct fs_caller *caller, uint64_t parent_ino, const char *name,
               struct inode **child)
{
    struct inode *parent;
    int error = ENOTDIR;

    *child = NULL;
    if (strlen(name) > NAME_BYTES_MAX)
        return ENAMETOOLONG;
    if (name_is_hidden(fs, parent_ino, name) || !g_utf8_validate(name, -1, NULL))
        return ENOENT;
    parent = inode_get(fs, parent_ino);
    if (!parent)
        return ESTALE;
    if (is_directory(parent))
        error = find_below(fs, caller, parent, name, child);
    inode_unpin(fs, parent);
    return error;
}

/* Whether the name of INODE, which was just found, may be going away. */
static bool is_busy(struct inode *inode)
{
    bool busy;

    pthread_mutex_lock(&inode->lock);
    busy = inode->publishing;
    if (busy)
        wait_changed(inode, 10);
    pthread_mutex_unlock(&inode->lock);
    return busy;
}

int fs_lookup(struct fs *fs, struct fs_caller *caller, uint64_t parent, const char *name,
              struct stat *st)
{
    struct inode *child;
    int error = find_child(fs, caller, parent, name, &child);

    while (!error && reopens_expect_task(fs->reopens, caller->task) && is_busy(child)) {
        inode_unpin(fs, child);
        error = is_interrupted(caller) ? EINTR : find_child(fs, caller, parent, name, &child);
    }
    if (error) {
        reopens_end(fs->reopens, caller->task);
        return error;
    }
    inode_stat(child, st);
    pthread_mutex_lock(&fs->lock);
    child->lookups++;
    cold_touch(fs, child);
    inode_unpin_locked(fs, child);
    pthread_mutex_unlock(&fs->lock);
    return 0;
}

int fs_getattr(struct fs *fs, struct fs_caller *caller, uint64_t ino, struct stat *st)
{
    struct inode *inode = inode_get(fs, ino);
    int error;

    if (!inode)
        return ESTALE;
    error = inode_refresh(fs, caller, inode);
    if (error == ESTALE)
        error = 0; /* who has it open may still ask */
    if (!error)
        inode_stat(inode, st);
    inode_unpin(fs, inode);
    return error;
}

static int64_t ns_of(struct timespec t)
{
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void set_attrs(struct fs *fs, struct inode *inode, const struct stat *to, unsigned set)
{
    pthread_mutex_lock(&inode->lock);
    if (set & FS_SET_MODE)
        inode->attrs.mode = (inode->attrs.mode & S_IFMT) | (to->st_mode & 07777);
    if (set & FS_SET_UID)
        inode->attrs.uid = to->st_uid;
    if (set & FS_SET_GID)
        inode->attrs.gid = to->st_gid;
    if (set & FS_SET_MTIME)
        inode->attrs.mtime_ns = ns_of(to->st_mtim);
    if (set & FS_SET_ATIME)
        inode->attrs.atime_ns = ns_of(to->st_atim);
    inode->attrs.ctime_ns = now_ns();
    inode->attrs_dirty = true;
    /* An upload that began carries the attributes of then: they are put right when it is there. */
    inode->attrs_explicit = inode->attrs_explicit || inode->upload;
    inode_mark_dirty(fs, inode);
    journal_image(fs, inode);
    pthread_mutex_unlock(&inode->lock);
}

int publish_attributes(struct fs *fs, struct fs_caller *caller, struct inode *inode)
{
    bool is_later, with_bytes;
    int error = 0;

    pthread_mutex_lock(&inode->lock);
    is_later = inode->writers || inode == fs->root;
    with_bytes = inode->data_dirty;
    pthread_mutex_unlock(&inode->lock);
    if (!is_later && with_bytes)
        error = publish_earlier_failures(fs, caller, inode);
    return is_later || error ? error : inode_publish(fs, caller, inode);
}

int fs_setattr(struct fs *fs, struct fs_caller *caller, uint64_t ino, const struct stat *to,
               unsigned set, struct stat *st)
{
    struct inode *inode;
    int error = fs_may_change(fs);

    if (error)
        return error;
    inode = inode_get(fs, ino);
    if (!inode)
        return ESTALE;
    error = inode_refresh_whole(fs, caller, inode);
    if (!error && (set & FS_SET_SIZE))
        error = is_directory(inode) ? EISDIR : inode_truncate(fs, caller, inode, to->st_size);
    if (!error)
        journal_start(fs, inode);
    if (!error && (set & ~FS_SET_SIZE) && inode != fs->root)
        set_attrs(fs, inode, to, set);
    if (!error)
        error = publish_attributes(fs, caller, inode);
    if (!error)
        inode_stat(inode, st);
    inode_unpin(fs, inode);
    return error;
}

/* Who the new INODE belongs to: the caller, or with the set-group-ID bit the parent's group. */
static void set_owner(struct inode *inode, struct inode *parent, const struct fs_caller *caller)
{
    mode_t parent_mode;
    gid_t parent_gid;

    pthread_mutex_lock(&parent->lock);
    parent_mode = parent->attrs.mode;
    parent_gid = parent->attrs.gid;
    pthread_mutex_unlock(&parent->lock);
    pthread_mutex_lock(&inode->lock);
    inode->attrs.uid = caller->uid;
    inode->attrs.gid = parent_mode & S_ISGID ? parent_gid : caller->gid;
    if (parent_mode & S_ISGID && is_directory(inode))
        inode->attrs.mode |= S_ISGID;
    pthread_mutex_unlock(&inode->lock);
}

void touch_directory(struct inode *dir)
{
    pthread_mutex_lock(&dir->lock);
    dir->attrs.mtime_ns = dir->attrs.ctime_ns = now_ns();
    dir->edits++;
    pthread_mutex_unlock(&dir->lock);
}

int name_check(struct fs *fs, struct inode *parent, const char *name, bool is_dir)
{
    g_autofree char *key = inode_key(fs, parent);

    if (strlen(name) > NAME_BYTES_MAX ||
        strlen(key) + strlen(name) + is_dir > store_max_key_bytes(fs->store))
        return ENAMETOOLONG;
    return g_utf8_validate(name, -1, NULL) ? 0 : EILSEQ; /* keys are UTF-8 */
}

static int attach_new(struct fs *fs, struct inode *parent, const char *name, mode_t mode,
                      struct inode **inode)
{
    int error = 0;

    pthread_mutex_lock(&fs->lock);
    if (parent->removed && parent != fs->root)
        error = ENOENT;
    else if (inode_child(parent, name))
        error = EEXIST;
    else
        *inode = inode_new(fs, parent, name, mode);
    if (!error && S_ISDIR(mode) && fs_is_authority(fs)) {
        names_start(fs, *inode, 0); /* it is new: nothing is in it */
        (*inode)->may_have_index = false;
    }
    pthread_mutex_unlock(&fs->lock);
    return error;
}

int inode_make(struct fs *fs, struct fs_caller *caller, uint64_t parent_ino, const char *name,
               mode_t mode, struct inode **inode)
{
    struct inode *parent;
    int error = 0;

    if (name_is_hidden(fs, parent_ino, name))
        return EPERM;
    parent = inode_get(fs, parent_ino);
    if (!parent)
        return ENOENT;
    error = name_check(fs, parent, name, S_ISDIR(mode));
    if (!error)
        error = attach_new(fs, parent, name, mode, inode);
    if (!error) {
        set_owner(*inode, parent, caller);
        touch_directory(parent);
        pthread_mutex_lock(&(*inode)->lock);
        (*inode)->attrs_dirty = true;
        inode_mark_dirty(fs, *inode);
        pthread_mutex_unlock(&(*inode)->lock);
    }
    inode_unpin(fs, parent);
    return error;
}

/* What is in INODE's directory is to be asked again. */
static void unlearn_parent(struct fs *fs, struct inode *inode)
{
    pthread_mutex_lock(&fs->lock);
    if (inode->parent)
        names_forget(fs, inode->parent);
    pthread_mutex_unlock(&fs->lock);
}

/* A new name with attributes and nothing to write later: published before it is answered. */
static int make_now(struct fs *fs, struct fs_caller *caller, uint64_t parent_ino, const char *name,
                    mode_t mode, const char *body, struct stat *st)
{
    struct inode *inode;
    int error = fs_may_change(fs);

    if (error)
        return error;
    error = find_child(fs, caller, parent_ino, name, &inode);
    if (!error) {
        inode_unpin(fs, inode);
        return EEXIST;
    }
    if (error == ENOENT)
        error = inode_make(fs, caller, parent_ino, name, mode, &inode);
    if (error)
        return error;
    if (body) {
        struct fs_file file = {.inode = inode};

        error = fs_write(fs, caller, &file, 0, body, strlen(body));
    }
    if (!error)
        error = inode_publish(fs, caller, inode);
    if (error) {
        unlearn_parent(fs, inode); /* it may have come to be all the same */
        forget_name(fs, inode);
        inode_unpin(fs, inode);
        return error;
    }
    if (S_ISLNK(mode)) {
        pthread_mutex_lock(&inode->lock);
        inode->target = g_strdup(body);
        pthread_mutex_unlock(&inode->lock);
    }
    inode_stat(inode, st);
    pthread_mutex_lock(&fs->lock);
    inode->lookups++;
    inode_unpin_locked(fs, inode);
    pthread_mutex_unlock(&fs->lock);
    return 0;
}

int fs_mkdir(struct fs *fs, struct fs_caller *caller, uint64_t parent, const char *name,
             mode_t mode, struct stat *st)
{
    return make_now(fs, caller, parent, name, S_IFDIR | (mode & 07777), NULL, st);
}

int fs_symlink(struct fs *fs, struct fs_caller *caller, const char *target, uint64_t parent,
               const char *name, struct stat *st)
{
    return make_now(fs, caller, parent, name, S_IFLNK | 0777, target, st);
}

static void copy_target(void *user, const struct iovec *iov, unsigned count)
{
    GString *target = user;

    for (unsigned i = 0; i < count; i++)
        g_string_append_len(target, iov[i].iov_base, iov[i].iov_len);
}

static int read_target(struct fs *fs, struct fs_caller *caller, uint64_t ino, char **target)
{
    GString *text = g_string_new(NULL);
    struct fs_file *file;
    bool keep;
    int error = fs_open(fs, caller, ino, 0, &file, &keep);

    if (!error) {
        error = S_ISLNK(file->inode->attrs.mode)
                    ? fs_read(fs, caller, file, 0, 4096, copy_target, text)
                    : EINVAL;
        fs_release(fs, file);
    }
    *target = g_string_free(text, error != 0);
    return error;
}

/* A target is a symlink's content: as long as the version is the same, so is it. */
int fs_readlink(struct fs *fs, struct fs_caller *caller, uint64_t ino, char **target)
{
    struct inode *inode = inode_get(fs, ino);
    int error;

    if (!inode)
        return ESTALE;
    *target = NULL;
    error = inode_refresh(fs, caller, inode);
    if (!error) {
        pthread_mutex_lock(&inode->lock);
        *target = g_strdup(inode->target);
        pthread_mutex_unlock(&inode->lock);
    }
    if (!error && !*target) {
        error = read_target(fs, caller, ino, target);
        pthread_mutex_lock(&inode->lock);
        if (!error && !inode->target)
            inode->target = g_strdup(*target);
        pthread_mutex_unlock(&inode->lock);
    }
    inode_unpin(fs, inode);
    return error;
}
