/* What the files of the filesystem share. Not for other rooms.
 *
 * threads: lock order, outermost first: fs->lock, inode->lock, fs->dirty_lock; fs->notes_lock last.
 * None is held across a call to the store or a reply. inode->lock guards everything below its
 * declaration; fs->lock guards the tree (parent, name, children, removed, lookups, pins, table).
 */
#pragma once

#include "config/error.h"
#include "config/log.h"
#include "fusefs/budget.h"
#include "fusefs/fs.h"
#include "fusefs/journal.h"
#include "fusefs/layout.h"
#include "fusefs/lease.h"
#include "fusefs/ranges.h"
#include "fusefs/record.h"
#include "fusefs/reopen.h"
#include "fusefs/staged.h"
#include "storage/file_attrs.h"
#include <pthread.h>

#define ROOT_HIDDEN ".dstack-" /* names of the root with this beginning are ours, and not shown */

#define ATTR_TTL_MS 1000 /* the default */
#define LINEAGE     "dstack-lineage"

enum part_state { PART_WAITING, PART_SENDING, PART_SENT, PART_FAILED };

/* One part of an open upload: bytes [start, end) of the file. Its memory stays until it is sent. */
struct part {
    struct inode *inode;
    unsigned number;
    uint64_t start, end;
    enum part_state state;
    bool copied;        /* a range of the base object, not bytes of ours */
    bool changed;       /* written to since it was sent: to be sent again */
    struct layout sent; /* frozen while SENDING */
    char *etag;
};

/* A multipart upload that grows while the program writes. A staged one goes to a key of ours, so
 * that it can be committed, and then read, before the file is finished. */
struct upload {
    char *key, *id; /* id NULL: being begun */
    bool staged, beginning;
    int error;        /* the first one of a part, or of its begin */
    bool in_doubt;    /* its commit may have been carried out */
    bool is_lost;     /* the store has it no more, nor bytes that only it had */
    bool lost_copy;   /* a part could not be copied: the source is gone, or the upload */
    char *lineage;    /* that its metadata tell */
    GPtrArray *parts; /* struct part*, ascending and touching from 0 */
    uint64_t end;     /* where the last part ends */
    unsigned sending;
};

struct inode {
    uint64_t ino;
    /* fs->lock: */
    struct inode *parent;
    char *name;
    GHashTable *children; /* directories: name -> inode */
    bool is_large;        /* directories: their names are too many to be learnt */
    GHashTable *names;    /* directories: what else is there, records; NULL: unknown */
    unsigned unindexed;   /* directories: how many of these know what no index tells */
    bool may_have_index;  /* directories: there may be one in the store */
    int64_t indexed_ms;   /* directories: when its index was last written; 0: never */
    int64_t index_took_ms;
    uint64_t lookups;
    unsigned pins;
    bool removed;     /* has no name any more */
    uint64_t changes; /* directories: names added or removed here */
    GQueue questions; /* directories: struct question, the askers', by their links */
    GQueue listings;  /* directories: struct fs_dir, those that are open, the last one first */
    GList cold_link;  /* files: in fs->cold */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct file_attrs attrs;
    GHashTable *metadata; /* the object's other metadata, kept as it is */
    uint64_t size;
    int64_t checked_ms; /* when the store was last asked; 0: never */
    /* From a record: the other metadata are not known (partial), nor are layout, base_key and
     * lineage set (unread). */
    bool partial, unread;
    bool has_xattrs;       /* while it is partial */
    int64_t changed_ns;    /* see struct record */
    bool is_changed_exact; /* RECORD_EXACT */
    bool is_quiet;         /* asked for when changed_ns was long over: who changes it since, gives
                            * it a later time */
    bool indexed;          /* RECORD_INDEXED */
    char *target;          /* a symlink's, once it was read */
    uint64_t edits;        /* directories: how often names changed here */
    uint64_t version;      /* goes up with every change here: older answers of the store are void */
    /* The object that `in_object` means; etag NULL: there is none. The file's own key, or a staged
     * one: what was saved out of sight, or kept of a file that was removed while open. */
    char *base_key, *etag;
    uint64_t base_size;
    struct publish *doubt; /* one that may have been carried out, though it failed; NULL: none */
    char *lineage;         /* the same as long as bytes are only added */
    char *base_lineage;    /* the base object's, since the file is rewritten; NULL: the same */
    bool rewritten;        /* since the last publish, published bytes changed */
    bool attrs_dirty, data_dirty, publishing;
    bool attrs_explicit; /* set while an upload that carries older ones was under way */
    bool vanished;       /* unlinked or replaced, but still open */
    /* Another client put another file in its place, or removed it. An inode is one version of a
     * file (which may grow): so are the kernel's pages of it. What replaced it is another inode. */
    atomic_bool replaced;
    bool grown; /* another client added to it, since the last open here */
    unsigned handles, readers, writers;
    GQueue files;                  /* struct fs_file: the handles, by their links */
    unsigned syncing;              /* closes and fsyncs under way */
    struct journal_chain *journal; /* NULL: none of it is told */
    struct layout layout;
    struct upload *upload;
    GQueue streams, segments; /* readahead.c, segments.h */
    struct ranges given;      /* of the base object, to the kernel, which holds it perhaps */
    uint64_t pieces[2];       /* how much of it was read in one go, the last times */
    unsigned ends_met;        /* of pieces that went to the other end, and... */
    unsigned ends_missed;     /* ...that did not, since one did */
    /* the publisher's: */
    int64_t dirty_ms, next_publish_ms, window_ms;
    uint64_t window_bytes;
    unsigned slow_windows;
    bool refused;          /* the last publish failed in a way that trying again does not mend */
    uint64_t failed_close; /* the number of its close() or fsync() that failed: to be saved before
                            * those with higher numbers; 0: none did */
    /* fs->dirty_lock: */
    GList *dirty_link;
};

struct fs_file {
    struct inode *inode;
    int flags;
    GList link; /* inode->lock; in inode->files */
};

/* Some at a time. */
struct turns {
    pthread_mutex_t lock;
    pthread_cond_t given;
    unsigned taken, most;
};

struct fs {
    struct store *store;
    struct fs_options options;
    struct budget *budget;
    struct journal *journal; /* NULL: none */
    uint64_t part_bytes, max_upload_bytes;
    char *owner; /* what our own objects are named after */
    atomic_uint staged_count;
    atomic_ulong failed_closes;

    pthread_mutex_t lock;
    GHashTable *inodes; /* ino -> inode */
    struct inode *root;
    size_t names_bytes; /* in all `names` */
    GQueue cold;        /* files, by cold_link: those that were not looked up for longest first */

    pthread_mutex_t dirty_lock;
    pthread_cond_t dirty_changed;
    GQueue dirty; /* struct inode*, pinned, in the order they became dirty */
    bool stopping;

    struct turns padding; /* to take it */
    struct turns direct;  /* to read into memory beside the budget */

    pthread_mutex_t notes_lock;
    GHashTable *complaints;   /* key -> when its failure was logged */
    char *last_complaint;     /* NULL: none */
    GHashTable *late;         /* key -> struct late (late.c) */
    GHashTable *lost_uploads; /* keys that may have an upload in the store whose id nobody knows */

    /* A rename of a directory excludes what uses keys made from the tree: a count, not a lock. The
     * gate is passed before an inode's turn to publish is waited for. */
    pthread_mutex_t gate_lock;
    pthread_cond_t gate_changed;
    unsigned gate_users;
    bool gate_closed;

    atomic_llong store_ns;             /* the store's own time: the latest that an answer told */
    atomic_llong attrs_ms;             /* when attributes last changed here */
    struct index_keeper *index;        /* index_keeper.c; NULL: indexes are not written */
    _Atomic(struct cold *) forgetting; /* cold.c; NULL: the kernel is not asked to forget */

    struct reopens *reopens; /* opens that came too late, and will be tried once more */
    struct fs_recovered recovered;
    atomic_bool draining;
    pthread_t publishers[4];
};

/* A name of which the store is being asked: its answer is moot once the name came or went here, or
 * is under another key. */
struct question {
    const char *name;
    int64_t asked_ns; /* the store's time before it was asked */
    bool moot;
    GList link;
};

/* --- fs.c --- */
int fs_may_change(struct fs *fs); /* 0, EROFS, or ESTALE when the lease is lost */
bool fs_has_lost_lease(struct fs *fs);
/* Before the store is changed at KEY: whether the prefix surely still is ours, and nothing is late
 * there. 0, ESTALE, EIO, EINTR. */
int fs_assure_lease(struct fs *fs, struct fs_caller *caller, const char *key);
GPtrArray *fs_pin_dirty(struct fs *fs); /* the dirty files, each pinned */
bool fs_is_authority(struct fs *fs);    /* nobody else writes here: what is known stays true */

/* --- inode.c: the tree --- */
struct inode *inode_new(struct fs *fs, struct inode *parent, const char *name, mode_t mode);
/* What NAME's number in PARENT is, unless another inode has it. The same for every mount. */
uint64_t inode_number(const struct inode *parent, const char *name);
struct inode *inode_get(struct fs *fs, uint64_t ino); /* pinned; NULL when unknown */
void inode_pin(struct fs *fs, struct inode *inode);
void inode_unpin(struct fs *fs, struct inode *inode); /* no lock held */
void inode_unpin_locked(struct fs *fs, struct inode *inode);
bool inode_is_listed_dirty(struct fs *fs, struct inode *inode);    /* dirty_lock is taken */
struct inode *inode_child(struct inode *parent, const char *name); /* fs->lock */
void inode_attach(struct fs *fs, struct inode *inode, struct inode *parent,
                  const char *name);    /* fs->lock */
void inode_detach(struct inode *inode); /* fs->lock */
void question_begin(struct fs *fs, struct inode *parent, struct question *question,
                    const char *name);
void question_end(struct inode *parent, struct question *question); /* both: fs->lock */
void question_drop(struct fs *fs, struct inode *parent, struct question *question); /* takes it */
void questions_void(struct inode *parent);                                          /* fs->lock */
char *inode_key(struct fs *fs, struct inode *inode); /* takes fs->lock; dirs end in '/' */
char *inode_key_locked(struct inode *inode);
void inode_stat(struct inode *inode, struct stat *st); /* takes inode->lock */
void inodes_free_all(struct fs *fs);
bool is_directory(const struct inode *inode);

/* --- names.c: what is in a directory, on a mount that is the authority. fs->lock held. --- */
/* From now on they are known: none, at first. False: COUNT of them are too many. */
bool names_start(struct fs *fs, struct inode *dir, unsigned count);
void names_forget(struct fs *fs, struct inode *dir);
void names_add(struct fs *fs, struct inode *dir, struct record *record); /* takes it over */
void names_remove(struct fs *fs, struct inode *dir, const char *name);
struct record *names_steal(struct fs *fs, struct inode *dir, const char *name); /* NULL: none */
/* DIR->names is there: the record, or NULL. */
struct record *names_find(const struct inode *dir, const char *name);
/* All of DIR's attributes now are in its index, or are not. */
void names_set_indexed(struct inode *dir, bool indexed);
/* DIR's objects are under new keys, with ETAGS (key -> ETag): others are not known any more. */
void names_rebase(struct fs *fs, struct inode *dir, GHashTable *etags);

/* --- request.c: waiting for the store, with an ear for the caller --- */
int64_t now_ms(void);
int64_t now_ns(void);
void timespec_in(struct timespec *until, unsigned ms);
int run_call(struct fs *fs, struct fs_caller *caller, struct store_call *call);
/* The two halves of run_call, for several calls at once. */
struct waiter *start_call(struct fs *fs, struct store_call *call);
int finish_call(struct fs *fs, struct fs_caller *caller, struct store_call *call,
                struct waiter *waiter);
/* Whether it is answered by UNTIL_MS. False too when CALLER is interrupted. */
bool call_is_answered(struct fs_caller *caller, struct waiter *waiter, int64_t until_ms);
bool is_interrupted(struct fs_caller *caller);
bool maybe_carried_out(int error);                   /* what a call failed with; 0: no */
bool caller_is_over(void *caller);                   /* the same, for leases */
bool wait_changed(struct inode *inode, unsigned ms); /* inode->lock held; false: timed out */
int object_copy(struct fs *fs, struct fs_caller *caller, const char *from, const char *to,
                uint64_t size, const char *etag, GHashTable *metadata, char **new_etag);
/* --- late.c: what the store still does for who was told EINTR --- */
void late_begin(struct fs *fs, const char *key);
void late_end(struct fs *fs, const struct store_call *call); /* on the store's threads */
/* What is late at KEY is removed when it has ended. False: it has ended already. */
bool late_undo(struct fs *fs, const char *key);
bool late_is(struct fs *fs, const char *key);
void late_list(struct fs *fs, GPtrArray *keys); /* char* */
/* Until nothing is late at KEY, or below it when it ends in '/'. 0 or EINTR. */
int late_wait(struct fs *fs, struct fs_caller *caller, const char *key);

/* --- request.c: the gate --- */
int gate_enter(struct fs *fs, struct fs_caller *caller); /* 0 or EINTR */
void gate_leave(struct fs *fs);
int gate_close(struct fs *fs, struct fs_caller *caller); /* 0 or EINTR */
void gate_open(struct fs *fs);
bool gate_is_open(struct fs *fs);

/* --- attrs.c: what the store says of an object, into the inode and back --- */
/* OBJECT is what a HEAD told; before it was asked for, inode->version was VERSION and the store's
 * time ASKED_NS (0: unknown). False: another client put another file in this one's place. */
bool inode_load(struct fs *fs, struct inode *inode, const struct store_object *object,
                int64_t asked_ns, uint64_t version);
GHashTable *inode_metadata(struct inode *inode); /* inode->lock held */
/* Published bytes change: what will be published is no longer the same file grown. inode->lock
 * held. */
void inode_rewritten(struct inode *inode);
/* The store has just answered a change of INODE. inode->lock held. */
void inode_note_change(struct fs *fs, struct inode *inode);
/* What is known of INODE, for when it goes; PLAIN: its name alone. inode->lock held. */
struct record *inode_to_record(const struct inode *inode);
/* A new inode (pinned) for what RECORD (full; taken over) tells as of CHECKED_MS. fs->lock held. */
struct inode *inode_from_record(struct fs *fs, struct inode *parent, struct record *record,
                                int64_t checked_ms);
/* Takes over what a listing of CHECKED_MS said; false: INODE is another version. No lock held. */
bool inode_update(struct inode *inode, const struct record *record, int64_t checked_ms);
/* A listing of CHECKED_MS has OBJECT: if that is what is known, it is as of then. fs->lock held. */
void inode_confirm(struct inode *inode, const struct store_object *object, int64_t checked_ms);
/* Before it is read. */
void inode_take_up(struct fs *fs, struct inode *inode);
bool inode_is_fresh(struct fs *fs, struct inode *inode); /* what is known needs no asking */
/* A directory has no object of its own: it may be nothing but a prefix. */
void inode_note_prefix(struct inode *inode);
/* ENOENT, or ESTALE when another file has its name now: then INODE has lost it. */
int inode_refresh(struct fs *fs, struct fs_caller *caller, struct inode *inode);
int inode_refresh_for(struct fs *fs, struct fs_caller *caller, struct inode *inode,
                      unsigned max_age_ms);
/* And all of its metadata are known then: before they are changed, or saved. */
int inode_refresh_whole(struct fs *fs, struct fs_caller *caller, struct inode *inode);

/* --- dir.c --- */
/* Tries to make the names in INODE known, with at most MAX_PAGES pages of a listing (0: all). */
int dir_learn(struct fs *fs, struct fs_caller *caller, struct inode *inode, unsigned max_pages);

/* --- dir_follow.c --- */
/* Up to MOST names (char*; directories' end in '/') behind NAME in one of INODE's open listings, of
 * which attributes are not known: if lookups follow it in order. fs->lock held. */
GPtrArray *dir_names_ahead(struct fs *fs, struct inode *inode, const char *name, unsigned most,
                           struct fs_dir **listing);
/* HELD (pinned; taken over) stay until LISTING's next ones, or until it is closed. */
void dir_hold(struct fs *fs, struct inode *inode, const struct fs_dir *listing, GPtrArray *held);
/* What INODE's listings hold is held no longer. */
void dir_let_go(struct fs *fs, struct inode *inode);

/* --- namespace.c --- */
/* A new inode (pinned) for QUESTION's name, of which the store has OBJECT (NULL: a mere prefix).
 * EAGAIN: the answer is moot. Ends QUESTION. */
int name_adopt(struct fs *fs, struct inode *parent, struct question *question, bool is_dir,
               const struct store_object *object, struct inode **child);

/* --- lookahead.c: all take NULL --- */
struct lookahead;
/* NULL: nothing will be asked for beside NAME. */
struct lookahead *lookahead_new(struct fs *fs, struct inode *parent, const char *name);
void lookahead_start(struct fs *fs, struct lookahead *ahead); /* beside NAME's own request */
/* When that was answered: takes what is there, or soon is. */
void lookahead_end(struct fs *fs, struct fs_caller *caller, struct lookahead *ahead);

/* --- index_keeper.c --- */
#define INDEX_WORTH 64 /* files whose attributes are not known, before an index is thought of */

/* What DIR's index tells, as a table of records; NULL: nothing. */
GHashTable *index_load(struct fs *fs, struct fs_caller *caller, struct inode *dir);
/* DIR has something to tell that no index does. fs->lock held. */
bool index_is_wanted(struct fs *fs, struct inode *dir);
/* The directory with KEY is no more, or is another one; BELOW: and so is what was below it. */
void index_forget(struct fs *fs, const char *key, bool below);
void index_forget_of(struct fs *fs, const struct inode *dir, const char *key);
struct index_keeper;
void index_keeper_start(struct fs *fs);
void index_keeper_stop(struct fs *fs); /* writes what is wanted */

/* --- cold.c; see fs_forget_start --- */
void cold_add(struct fs *fs, struct inode *inode);    /* fs->lock */
void cold_remove(struct fs *fs, struct inode *inode); /* fs->lock */
void cold_touch(struct fs *fs, struct inode *inode);  /* fs->lock: it is in use */

/* --- rename.c --- */
/* Copies all below FROM to TO. KEYS (char*) are what there was, for prefix_delete; ETAGS tells the
 * new keys' ETags. A failure leaves nothing at TO. */
int prefix_copy(struct fs *fs, struct fs_caller *caller, const char *from, const char *to,
                GPtrArray *keys, GHashTable *etags);
void prefix_delete(struct fs *fs, GPtrArray *keys);

/* --- readahead.c --- */
int base_read(struct fs *fs, struct fs_caller *caller, struct inode *inode, uint64_t offset,
              size_t size, fs_reply *reply, void *user);
int base_fetch(struct fs *fs, struct fs_caller *caller, const char *key, const char *etag,
               uint64_t offset, void *data, size_t size);
void streams_drop(struct inode *inode); /* inode->lock held */
void streams_trim(struct inode *inode); /* those nobody has used for a while. inode->lock held */

/* --- staged.c --- */
char *staged_key_new(struct fs *fs);
bool key_is_staged(const char *key);                /* NULL: no */
void staged_remove(struct fs *fs, const char *key); /* some time; no lock held */

/* --- complaints.c --- */
/* Logs that KEY is not saved, once until complain_no_more. */
void complain(struct fs *fs, const char *key, const char *format, ...) G_GNUC_PRINTF(3, 4);
void complain_no_more(struct fs *fs, const char *key);

/* --- leftovers.c --- */
/* The answer to an upload's begin was lost: what it began is aborted when the mount ends, or by the
 * next one. */
void leftovers_note_lost(struct fs *fs, const char *key);
void leftovers_abort_lost(struct fs *fs);

/* --- namespace.c --- */
/* At once, unless somebody has INODE open for writing: then their close does it. */
int publish_attributes(struct fs *fs, struct fs_caller *caller, struct inode *inode);
void touch_directory(struct inode *dir); /* names in it changed; its lock is taken */
/* A new, dirty inode (pinned), owned by the caller. */
int inode_make(struct fs *fs, struct fs_caller *caller, uint64_t parent_ino, const char *name,
               mode_t mode, struct inode **inode);
void forget_name(struct fs *fs, struct inode *inode); /* the store has it no more; no lock held */
/* The store has another file of its name; no lock held. */
void forget_version(struct fs *fs, struct inode *inode);
/* What a new NAME in PARENT cannot be: ENAMETOOLONG, EILSEQ; 0: it can. */
int name_check(struct fs *fs, struct inode *parent, const char *name, bool is_dir);
bool name_is_hidden(struct fs *fs, uint64_t parent, const char *name);
char *child_key(struct fs *fs, struct inode *parent, const char *name);
int find_child(struct fs *fs, struct fs_caller *caller, uint64_t parent, const char *name,
               struct inode **child); /* pinned */

/* --- remove.c --- */
/* INODE is about to lose its name: its bytes move aside while somebody has it open, and its turn to
 * publish is held until inode_publish_end. */
int hide_open_file(struct fs *fs, struct fs_caller *caller, struct inode *inode);
void unhide_open_file(struct fs *fs, struct inode *inode); /* it keeps it after all */
int directory_is_empty(struct fs *fs, struct fs_caller *caller, struct inode *inode);

/* --- journal_inode.c: what is unsaved, for who finds it after a crash. All but the first two and
 * journal_end with inode->lock held. --- */
/* INODE is about to be changed: its path is known from now on. No lock held. */
void journal_start(struct fs *fs, struct inode *inode);
void journal_moved(struct fs *fs, struct inode *inode); /* it, or its directory; fs->lock held */
void journal_end(struct fs *fs, struct inode *inode);   /* before it is freed */
/* The inode as it is now, in place of what was told; nothing when it is saved. Before memory that
 * was told of is given up. */
void journal_image(struct fs *fs, struct inode *inode);
/* Behind a change: the file is told of, if it was not. */
void journal_ensure(struct fs *fs, struct inode *inode);
/* Before the layout lets go of what is replaced or cut. */
void journal_put(struct fs *fs, struct inode *inode, uint64_t offset, uint64_t length,
                 const struct buffer *buffer, uint32_t buffer_offset);
void journal_put_in_place(struct fs *fs, struct inode *inode, uint64_t offset, uint64_t length);
void journal_resize(struct fs *fs, struct inode *inode, uint64_t size);
void journal_state(struct inode *inode); /* writers, syncing, upload… changed */
void journal_due(struct inode *inode);   /* the timer is to publish it */
/* A publish has ended; IS_VISIBLE: what is dirty now came later. */
void journal_published(struct fs *fs, struct inode *inode, bool is_visible);
void journal_clean(struct fs *fs, struct inode *inode);      /* nothing of it is to be found */
void journal_drop_clean(struct fs *fs, struct inode *inode); /* layout_drop_clean */
bool journal_tells_of(const struct inode *inode);
void journal_set_path(struct fs *fs, struct inode *inode, const char *path);

/* --- write.c --- */
/* 0, EINTR, or ETIMEDOUT after WAIT_MS (0: never). */
int turn_take(struct turns *turns, struct fs_caller *caller, unsigned wait_ms);
void turn_give(struct turns *turns);
void make_room(struct fs *fs); /* memory is short; no lock held */
/* Buffers of SIZES (size_t) for what a publish must fetch first, all of them into PADDING: one
 * publish at a time waits for them, so that none waits for what another one holds. 0 or EINTR. */
int take_padding(struct fs *fs, struct fs_caller *caller, GArray *sizes, GPtrArray *padding);
struct buffer *wait_buffer(struct fs *fs, struct fs_caller *caller, size_t size, int *error);
/* For what is there for the time of a call to the store; who waits holds no memory. NULL: EINTR. */
struct buffer *wait_wanted(struct fs *fs, struct fs_caller *caller, size_t size, int *error);
int inode_truncate(struct fs *fs, struct fs_caller *caller, struct inode *inode, uint64_t size);
void inode_mark_dirty(struct fs *fs, struct inode *inode); /* inode->lock held */

/* --- upload.c --- */
uint64_t fs_max_upload_bytes(struct fs *fs); /* what the store's number of parts is enough for */
/* How much the store copies in the next part, of LEFT bytes of an object of SIZE: several parts, as
 * stores copy those at once, and about equal ones. */
uint64_t copied_part_bytes(struct fs *fs, uint64_t size, uint64_t left);
/* INODE's upload has few numbers left. inode->lock held. */
bool upload_is_full(struct fs *fs, const struct inode *inode);
void upload_begun(struct fs *fs, const struct store_call *begin); /* for who finds it unfinished */
void upload_forget(struct fs *fs, const char *key, const char *id);
/* Aborts it some time; while it is there it stays in the lease. No lock held. */
void upload_abort(struct fs *fs, const char *key, const char *id);
void upload_pump(struct fs *fs, struct inode *inode, bool flush);       /* inode->lock not held */
void upload_changed(struct inode *inode, uint64_t start, uint64_t end); /* inode->lock held */
/* After a publish of SENT that failed: what was written meanwhile is to be sent again. */
void upload_compare(struct inode *inode, const struct layout *sent); /* inode->lock held */
int upload_finish(struct fs *fs, struct fs_caller *caller, struct inode *inode,
                  struct layout *snapshot, const char *key, char **etag);
int wait_begun(struct fs_caller *caller, struct inode *inode); /* inode->lock held; 0 or EINTR */
void upload_discard(struct fs *fs, struct inode *inode); /* inode->lock held; dropped inside */

/* --- publish.c --- */
int inode_publish(struct fs *fs, struct fs_caller *caller, struct inode *inode);
/* Makes every byte of INODE readable here and lets go of its memory, out of sight where that can
 * be. */
int inode_settle(struct fs *fs, struct fs_caller *caller, struct inode *inode);
/* Publishes (or, with SETTLE, only makes readable what is not and somebody has open), and keeps the
 * turn: nobody else publishes INODE and no upload of it begins until inode_publish_end. */
int inode_publish_hold(struct fs *fs, struct fs_caller *caller, struct inode *inode, bool settle);
void inode_publish_end(struct fs *fs, struct inode *inode);
/* A file that has neither name nor handles is nobody's: takes back what is left of it. Returns the
 * staged object that held its bytes, to be removed. inode->lock held; dropped inside. */
char *inode_end_vanished(struct fs *fs, struct inode *inode);
void leave_dirty_list(struct fs *fs, struct inode *inode); /* when it is clean; no lock held */
bool inode_is_dirty(const struct inode *inode);            /* inode->lock held */

/* --- doubt.c --- */
void doubt_free(struct publish *doubt);
/* *ETAG: of the object KEY, if it is of LINEAGE and has BYTES; NULL: it is not, or is not there. */
int find_landed(struct fs *fs, struct fs_caller *caller, const char *key, const char *lineage,
                uint64_t bytes, char **etag);

/* --- publisher.c --- */
bool inode_grows_slowly(const struct inode *inode); /* a log, though it has an upload */
/* Files whose close failed before INODE's. */
int publish_earlier_failures(struct fs *fs, struct fs_caller *caller, struct inode *inode);
void publishers_start(struct fs *fs);
void publishers_stop(struct fs *fs);
