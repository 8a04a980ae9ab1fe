#include "runner/submit/machine_has.h"
#include "config/error.h"
#include "config/units.h"
#include <sched.h>
#include <string.h>
#include <sys/statvfs.h>

static bool field(const char *text, const char *name, uint64_t *bytes)
{
    const char *at = strstr(text, name);

    if (!at)
        return false;
    *bytes = g_ascii_strtoull(at + strlen(name), NULL, 10) * 1024;
    return true;
}

bool meminfo_parse(const char *text, uint64_t *available_bytes, uint64_t *total_bytes)
{
    return field(text, "MemTotal:", total_bytes) && field(text, "MemAvailable:", available_bytes);
}

static unsigned cpus(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return (unsigned)CPU_COUNT(&set);
    return g_get_num_processors(); /* more than a set has room for */
}

static bool has_cpus(unsigned wanted, GError **error)
{
    return wanted <= cpus() ||
           error_set(error, ENOSPC, "the workflow asks for %u CPUs; this machine has %u", wanted,
                     cpus());
}

static bool has_memory(uint64_t wanted, GError **error)
{
    uint64_t available = 0, total = 0;
    g_autofree char *text = NULL, *asked = NULL, *free_now = NULL, *all = NULL;

    if (!wanted)
        return true;
    if (!g_file_get_contents("/proc/meminfo", &text, NULL, NULL) ||
        !meminfo_parse(text, &available, &total))
        return error_set(error, EIO, "/proc/meminfo does not tell how much memory there is");
    if (wanted <= available)
        return true;
    asked = size_format(wanted);
    free_now = size_format(available);
    all = size_format(total);
    return error_set(error, ENOSPC,
                     "the workflow asks for %s of memory; of this machine's %s, %s are available",
                     asked, all, free_now);
}

static bool has_shm(uint64_t wanted, GError **error)
{
    struct statvfs st = {0};
    g_autofree char *asked = size_format(wanted), *has = NULL;

    if (!wanted)
        return true;
    if (statvfs("/dev/shm", &st) != 0)
        return error_set(error, ENOSPC,
                         "the workflow asks for %s of shared memory; there is no /dev/shm", asked);
    has = size_format((uint64_t)st.f_blocks * st.f_frsize);
    return wanted <= (uint64_t)st.f_blocks * st.f_frsize ||
           error_set(error, ENOSPC,
                     "the workflow asks for %s of shared memory; /dev/shm has %s: remount it with "
                     "a larger size",
                     asked, has);
}

static bool is_called(const char *gpu, const char *name)
{
    g_autofree char *one = g_ascii_strdown(gpu, -1), *two = g_ascii_strdown(name, -1);
    const char *wanted = g_str_has_prefix(two, "nvidia ") ? two + strlen("nvidia ") : two;

    return strstr(one, wanted) != NULL; /* "A100" of "NVIDIA A100-SXM4-40GB" */
}

unsigned gpus_count(const char *list, const char *name, uint64_t memory_bytes)
{
    g_auto(GStrv) lines = g_strsplit(list, "\n", -1);
    unsigned count = 0;

    for (char **line = lines; *line; line++) {
        char *comma = strrchr(*line, ',');

        if (!comma)
            continue;
        *comma = '\0';
        if ((!name || is_called(*line, name)) &&
            g_ascii_strtoull(g_strstrip(comma + 1), NULL, 10) << 20 >= memory_bytes)
            count++;
    }
    return count;
}

static char *list_gpus(void)
{
    const char *argv[] = {"nvidia-smi", "--query-gpu=name,memory.total",
                          "--format=csv,noheader,nounits", NULL};
    char *out = NULL;
    int status = 0;

    if (!g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDERR_TO_DEV_NULL,
                      NULL, NULL, &out, NULL, &status, NULL) ||
        status != 0)
        g_clear_pointer(&out, g_free);
    return out;
}

static bool has_gpus(const struct resources *r, GError **error)
{
    g_autofree char *list = r->gpu ? list_gpus() : NULL;
    g_autofree char *memory = size_format(r->gpu_memory_bytes);
    unsigned has = list ? gpus_count(list, r->gpu_name, r->gpu_memory_bytes) : 0;
    g_autofree char *shown = NULL;

    if (has >= r->gpu)
        return true;
    if (list)
        g_strdelimit(g_strchomp(list), "\n", ';');
    shown = list && *list ? g_strdup_printf("it has %s MiB", list)
                          : g_strdup("it has none (nvidia-smi lists none)");
    return error_set(error, ENOSPC,
                     "the workflow asks for %u GPU%s%s%s%s%s; this machine has %u of "
                     "them: %s",
                     r->gpu, r->gpu == 1 ? "" : "s", r->gpu_name ? " " : "",
                     r->gpu_name ? r->gpu_name : "", r->gpu_memory_bytes ? " with " : "",
                     r->gpu_memory_bytes ? memory : "", has, shown);
}

bool machine_has(const struct resources *resources, bool in_container, GError **error)
{
    return has_cpus(resources->cpu, error) && has_memory(resources->memory_bytes, error) &&
           (in_container || has_shm(resources->shm_bytes, error)) && has_gpus(resources, error);
}
