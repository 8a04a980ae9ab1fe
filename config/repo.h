/* The repo that a directory belongs to: whose runs, tags and secrets these are.
 *
 * shape:  the top is git's, else the nearest parent with a .dstack directory, else the directory
 *         itself. The id is one safe segment of a key: of a git repository with a remote "origin",
 *         its owner and name; otherwise what .dstack/repo of the top says (repo_init writes it, so
 *         that the directory may move), else the directory's name and a digest of its real path.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

struct repo {
    char *top;
    char *id;
    bool is_git;
};

bool repo_find(const char *directory, struct repo *repo, GError **error);

/* The same, and DIRECTORY is a top from now on: unless it is in a git repository, it gets
 * .dstack/repo with the id that it has now. */
bool repo_init(const char *directory, struct repo *repo, GError **error);
void repo_clear(struct repo *repo);

/* The id that a name such as "user/repo" means: that of the git repository with that owner and
 * name; without a '/' it is an id already. NULL when it can be none. */
char *repo_id_of_name(const char *name);

/* The id of a git remote's URL; NULL when it says nothing. For tests. */
char *repo_id_of_url(const char *url);
