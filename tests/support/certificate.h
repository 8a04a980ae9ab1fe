/* Certificates that sign themselves, for TLS servers of tests. */
#pragma once

#include <openssl/ssl.h>

/* A server's context whose certificate is for NAME ("IP:127.0.0.1", "DNS:localhost") and valid from
 * FROM_DAYS to TO_DAYS from now. PATH (may be NULL): the certificate is written there, as PEM. */
SSL_CTX *certificate_context(const char *name, int from_days, int to_days, const char *path);
