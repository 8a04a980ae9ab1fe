/* What the driver remembers of each upload that this store began, until its commit or abort: under
 * which write id.
 *
 * shape:   an upload that somebody else began is not there, which every function allows.
 * threads: any.
 */
#pragma once

#include <glib.h>

struct s3_uploads;

struct s3_uploads *s3_uploads_new(void);
void s3_uploads_free(struct s3_uploads *uploads); /* takes NULL */

void s3_uploads_add(struct s3_uploads *uploads, const char *upload_id, const char *write_id);
void s3_uploads_remove(struct s3_uploads *uploads, const char *upload_id);

/* The write id of the object that the upload will be; NULL: not known. The caller's to free. */
char *s3_uploads_write_id(struct s3_uploads *uploads, const char *upload_id);
