/* The run document's JSON: what its writer and its reader share. */
#pragma once

#include <glib.h>
#include <jansson.h>

enum { RUN_JSON_VERSION = 1 };

typedef json_t Json;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Json, json_decref)
