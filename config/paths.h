/* Where this machine keeps its side of things: $DSTACK_HOME, or ~/.dstack. */
#pragma once

char *dstack_home(void);                  /* the caller's */
char *dstack_home_path(const char *name); /* $DSTACK_HOME/NAME; the caller's */

/* The file:// URL of a directory, in which a % is written as %25; the caller's. */
char *file_url(const char *path);
