/* What a driver or a layer over one fills in. For authors of drivers; callers read store.h.
 *
 * shape:   a driver embeds `struct store` first, fills driver, caps and url, and is used through
 *          the table below, of which no entry is NULL.
 * threads: start is called from any thread and must not block on the network; whatever takes time
 *          happens on threads of the driver. cancel may come at any time between start and
 *          completion, also from another thread. free is called once, with no call in flight.
 */
#pragma once

#include "storage/store.h"

struct store_driver {
    const char *name;
    /* Take over one reference to CALL and, some time later, store_complete it exactly once. */
    void (*start)(struct store *store, struct store_call *call);
    void (*cancel)(struct store *store, struct store_call *call);
    void (*free)(struct store *store);
};

struct store {
    const struct store_driver *driver;
    struct store_caps caps;
    const struct store *caps_of; /* a layer's: whose capabilities hold; NULL: those above */
    unsigned prefix_bytes;       /* a layer's: that it puts in front of keys */
    char *url;                   /* freed by the interface */
    struct store_base *base;     /* the interface's own: references, calls in flight */
};

/* Completes the fields of STORE that are the interface's own. URL is copied. */
void store_init(struct store *store, const struct store_driver *driver, const char *url);

/* The answer stands in CALL (error taken over if not NULL): wakes waiters, runs `done`, drops the
 * driver's reference. */
void store_complete(struct store_call *call, GError *error);

/* Whether store_cancel was asked for: for drivers that look between two steps. */
bool store_call_is_cancelled(const struct store_call *call);

/* Takes the place of a call that is refused before it is sent. */
void store_refuse(struct store_call *call, int code, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* One opener for each scheme; NULL-terminated table in store_open.c. */
struct store *store_file_open(const char *url, const struct store_options *options, GError **error);
struct store *store_s3_open(const char *url, const struct store_options *options, GError **error);
