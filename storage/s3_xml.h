/* The XML of S3: answers into structs, requests into text.
 *
 * errors: EIO when a document is not what was asked for. Documents are hostile: declarations of a
 *         document type, deep nesting and long texts are refused.
 * owns:   results are the caller's.
 * source: the Amazon S3 API reference; the same for each store that speaks it.
 */
#pragma once

#include "storage/store.h"

struct s3_error {
    char *code, *message;
};

/* Whether DATA is one document from its beginning to its end, whatever it says. */
bool s3_xml_is_whole(const char *data, size_t size);

/* False when DATA is no <Error> document; never an error of its own. */
bool s3_xml_error(const char *data, size_t size, struct s3_error *found);
void s3_error_clear(struct s3_error *found);

/* ListObjectsV2: fills CALL's objects, prefixes and next_token. */
bool s3_xml_list(const char *data, size_t size, struct store_call *call, GError **error);

/* ListMultipartUploads: fills CALL's uploads and next_token, which s3_xml_split_token takes apart.
 */
bool s3_xml_uploads(const char *data, size_t size, struct store_call *call, GError **error);
bool s3_xml_split_token(const char *token, char **key, char **upload_id);

/* DeleteObjects: adds to FAILED (char *) and sets *CODE (may stay NULL) to the first reason. */
bool s3_xml_deleted(const char *data, size_t size, GPtrArray *failed, char **code, GError **error);

/* The text of the first element NAME below ROOT ("CopyObjectResult", "ETag"). ETags lose their
 * quotes. NULL and *ERROR when it is not there. */
char *s3_xml_text(const char *data, size_t size, const char *root, const char *name,
                  GError **error);

/* Bodies of DeleteObjects and CompleteMultipartUpload. CHECKSUMS: char* (may be NULL), the CRC-32C
 * of each part, in the order of PARTS. */
GString *s3_xml_make_delete(GPtrArray *keys);
GString *s3_xml_make_commit(GArray *parts, GPtrArray *checksums);

/* Whether KEY can stand in an XML document at all. */
bool s3_xml_can_hold(const char *key);

/* ETAG without its quotes. */
char *s3_unquote(const char *etag);

/* "2009-10-12T17:50:30.000Z" in nanoseconds; 0 when it is not a time. */
int64_t s3_xml_time(const char *text);
