/* Keeping secrets out of a job's log: what a job prints of them is shown as ***.
 *
 * shape:   a stream of bytes goes through in pieces of any size. The end of a piece is held back
 *          while it could be the beginning of a secret. A secret of several lines is looked for
 *          line by line; of fewer than MASK_LEAST bytes it is not looked for.
 */
#pragma once

#include <glib.h>

enum { MASK_LEAST = 4 };

struct mask;

/* SECRETS: struct secret*. NULL when there is nothing to hide: then nothing need be called. */
struct mask *mask_new(const GPtrArray *secrets);
void mask_free(struct mask *mask); /* takes NULL */

/* Appends to OUT what DATA, behind what was held back, may show. */
void mask_add(struct mask *mask, const char *data, size_t size, GByteArray *out);

/* The end: appends what was held back. */
void mask_end(struct mask *mask, GByteArray *out);
