/* What the driver remembers of each upload that this store began, until its commit or abort: its
 * write id, and the checksums of its parts, which the commit has to repeat.
 *
 * shape:   an upload that somebody else began is not there, which every function allows.
 * threads: any.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

struct s3_uploads;

struct s3_uploads *s3_uploads_new(void);
void s3_uploads_free(struct s3_uploads *uploads); /* takes NULL */

void s3_uploads_add(struct s3_uploads *uploads, const char *upload_id, const char *write_id,
                    bool has_checksums);
void s3_uploads_remove(struct s3_uploads *uploads, const char *upload_id);

/* The write id of the object that the upload will be; NULL: not known. The caller's to free. */
char *s3_uploads_write_id(struct s3_uploads *uploads, const char *upload_id);

/* Whether the upload was begun as one whose parts have checksums. */
bool s3_uploads_has_checksums(struct s3_uploads *uploads, const char *upload_id);
void s3_uploads_set_checksum(struct s3_uploads *uploads, const char *upload_id, unsigned part,
                             const char *checksum);
/* A part's checksum, for the caller to free; NULL: not known. */
char *s3_uploads_checksum(struct s3_uploads *uploads, const char *upload_id, unsigned part);
