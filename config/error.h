/* Errors: one GError domain for the whole program.
 *
 * errors: the code is an errno value, the message a sentence that names the object and the cause.
 *         The function that knows most writes it, once; callers pass it on or prefix it.
 */
#pragma once

#include <errno.h>
#include <glib.h>

#define DSTACK_ERROR (dstack_error_quark())
GQuark dstack_error_quark(void);

/* Sets *ERROR (if ERROR is not NULL). CODE is an errno value, never 0. Returns false, so that a
 * failing function can say `return error_set(error, ENOENT, "…")`. */
gboolean error_set(GError **error, int code, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* The same, with ": " and the text of errno value CODE behind the message. */
gboolean error_set_errno(GError **error, int code, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* The errno value that stands for ERROR: its code in our domain, EIO for any other, 0 for NULL. */
int error_errno(const GError *error);

/* Whether ERROR is ours and has this errno value. */
gboolean error_is(const GError *error, int code);
