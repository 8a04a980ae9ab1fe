/* Tags: names for artifacts that outlive their run, one document tags/REPO/TAG.json each.
 *
 * shape:  a tag holds the artifacts under one run's prefix and says which they are, so that it is
 *         enough when the run's document is gone. A tag of a folder (tags add -a) has a prefix of
 *         its own and no run.
 * errors: ENOENT: no such tag; EINVAL: no tag document, or no name for one; ENOTSUP: a newer
 *         version's; EEXIST: another run's.
 * owns:   a tag owns everything in it.
 * safety: documents are foreign bytes: names and paths are checked here.
 */
#pragma once

#include "storage/store.h"

struct tag {
    char *name;
    char *run;        /* whose prefix it is: artifacts/REPO/RUN/ */
    char *owner;      /* who made the tag; NULL: not known */
    char **artifacts; /* paths as in the workflow; NULL: not known */
    int64_t created_ms;
    bool is_folder; /* there never was a run */
};

struct tag *tag_new(const char *name, const char *run);
void tag_free(struct tag *tag); /* takes NULL */
typedef struct tag Tag;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Tag, tag_free)

struct tag *tag_parse(const char *name, const char *text, size_t size, GError **error);

struct tag *tag_load(struct store *root, const char *repo, const char *name, GError **error);

/* All of REPO, by name. One LIST, and the documents many at a time. GPtrArray of struct tag*.
 * UNREAD (char*) gets a sentence for each document that is none we know: what it holds is not
 * known. NULL: these are warnings. */
GPtrArray *tags_load(struct store *root, const char *repo, GPtrArray *unread, GError **error);

/* EEXIST, with the run that has it, unless the tag is free. */
bool tag_check_free(struct store *root, const char *repo, const char *name, GError **error);

/* Writes TAG with the current user and time. EEXIST when it is another run's, unless MOVE, which
 * goes over what is no tag document, too. */
bool tag_save(struct store *root, const char *repo, const struct tag *tag, bool move,
              GError **error);
