#include "config/error.h"

/* Not G_DEFINE_QUARK, which writes a variable that other threads read. */
GQuark dstack_error_quark(void)
{
    return g_quark_from_static_string("dstack-error");
}

gboolean error_set(GError **error, int code, const char *format, ...)
{
    va_list args;

    if (!error)
        return FALSE;
    va_start(args, format);
    g_propagate_error(error, g_error_new_valist(DSTACK_ERROR, code, format, args));
    va_end(args);
    return FALSE;
}

gboolean error_set_errno(GError **error, int code, const char *format, ...)
{
    g_autofree char *message = NULL;
    va_list args;

    va_start(args, format);
    message = g_strdup_vprintf(format, args);
    va_end(args);
    return error_set(error, code, "%s: %s", message, g_strerror(code));
}

int error_errno(const GError *error)
{
    if (!error)
        return 0;
    return error->domain == DSTACK_ERROR && error->code > 0 ? error->code : EIO;
}

gboolean error_is(const GError *error, int code)
{
    return error && error->domain == DSTACK_ERROR && error->code == code;
}
