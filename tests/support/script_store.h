/* An S3 store on a scripted server, with credentials that no other test has. */
#pragma once

#include "storage/store.h"
#include "tests/support/script_server.h"

#define SCRIPT_SECRET "script-secret-key"

/* The bucket "tests" on SERVER, with OPTIONS (may be NULL); an endpoint there goes before SERVER's.
 * Aborts when it cannot be opened. */
struct store *script_store_open(const struct script_server *server,
                                const struct store_options *options);

/* Credentials into the environment, proxies out of it. */
void script_store_environment(void);

/* Runs a call that must fail; the error is the caller's to free. NULL: it did not. */
GError *script_store_failure(struct store *store, struct store_call *call);
