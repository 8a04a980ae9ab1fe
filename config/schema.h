/* Which keys a map may have, and what to say of one that it may not. */
#pragma once

#include "config/yaml_doc.h"

/* A key of which the first of KEYS (NULL-terminated) that is nearest is suggested. False and EINVAL
 * for the first key of MAP that is not one of KEYS. WHAT names the map: "workflow \"x\"". */
bool schema_check_keys(const char *file, const struct yaml_node *map, const char *const *keys,
                       const char *what, GError **error);

/* "FILE:LINE:COLUMN: message". Returns false. */
bool schema_error(const char *file, const struct yaml_node *node, GError **error,
                  const char *format, ...) G_GNUC_PRINTF(4, 5);

/* A text of MAP: *TEXT is the caller's, and untouched when KEY is not there. */
bool schema_text(const char *file, const struct yaml_node *map, const char *key, char **text,
                 GError **error);
bool schema_bool(const char *file, const struct yaml_node *map, const char *key, bool *value,
                 GError **error);

/* A list of texts, or (ONE_IS_ENOUGH) one text. */
bool schema_texts(const char *file, const struct yaml_node *map, const char *key,
                  bool one_is_enough, char ***texts, GError **error);
