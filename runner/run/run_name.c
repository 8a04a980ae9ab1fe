#include "runner/run/run_name.h"
#include <stdlib.h>
#include <string.h>

static const char *const ADJECTIVES[] = {
    "afraid",   "average", "bad",    "big",    "black",  "blue",      "brave",  "breezy",  "bright",
    "calm",     "chatty",  "chilly", "clever", "cold",   "cowardly",  "curly",  "dry",     "dull",
    "empty",    "fast",    "fluffy", "fresh",  "funny",  "fuzzy",     "gentle", "giant",   "good",
    "great",    "green",   "grumpy", "happy",  "heavy",  "honest",    "hot",    "hungry",  "itchy",
    "kind",     "large",   "lazy",   "light",  "loud",   "lucky",     "mighty", "modern",  "moody",
    "nasty",    "neat",    "new",    "nice",   "odd",    "old",       "plenty", "polite",  "proud",
    "quick",    "quiet",   "rare",   "red",    "rotten", "short",     "shy",    "silly",   "slimy",
    "slippery", "smart",   "smooth", "soft",   "sour",   "spicy",     "stale",  "strange", "strong",
    "sweet",    "swift",   "tall",   "tame",   "tasty",  "tidy",      "tiny",   "tough",   "warm",
    "weak",     "wet",     "wicked", "wise",   "witty",  "wonderful", "yellow",
};

static const char *const ANIMALS[] = {
    "ape",       "badger",    "bat",      "bear",        "bird",    "bobcat",   "bulldog",
    "bullfrog",  "cat",       "catfish",  "cheetah",     "chicken", "chipmunk", "cobra",
    "cougar",    "cow",       "crab",     "deer",        "dingo",   "dodo",     "dog",
    "dolphin",   "donkey",    "dragon",   "duck",        "eagle",   "earwig",   "eel",
    "elephant",  "emu",       "falcon",   "fish",        "fly",     "fox",      "frog",
    "gecko",     "goat",      "goose",    "grasshopper", "horse",   "husky",    "impala",
    "insect",    "jellyfish", "kangaroo", "ladybug",     "liger",   "lion",     "lizard",
    "mayfly",    "mole",      "monkey",   "moose",       "moth",    "mouse",    "mule",
    "newt",      "octopus",   "otter",    "owl",         "panda",   "panther",  "parrot",
    "penguin",   "pig",       "puma",     "pug",         "quail",   "rabbit",   "rat",
    "robin",     "seahorse",  "sheep",    "shrimp",      "skunk",   "sloth",    "snail",
    "snake",     "squid",     "starfish", "stingray",    "swan",    "termite",  "tiger",
    "treefrog",  "turkey",    "turtle",   "vampirebat",  "walrus",  "warthog",  "wasp",
    "wolverine", "wombat",    "yak",      "zebra",
};

struct highest {
    const char *prefix; /* "runs/REPO/adjective-animal-" */
    uint64_t number;
};

static bool note_number(const struct store_object *object, void *user, GError **error)
{
    struct highest *highest = user;
    char *end;
    uint64_t number = strtoull(object->key + strlen(highest->prefix), &end, 10);

    if (number < 1000000000 && strchr("!./", *end))
        highest->number = MAX(highest->number, number);
    return true;
}

static bool find_highest(struct store *root, const char *under, const char *repo, const char *pair,
                         struct highest *highest, GError **error)
{
    g_autofree char *prefix = g_strdup_printf("%s/%s/%s-", under, repo, pair);

    highest->prefix = prefix;
    return store_list(root, prefix, true, note_number, highest, error);
}

char *run_name_choose(struct store *root, const char *repo, GError **error)
{
    g_autofree char *pair =
        g_strdup_printf("%s-%s", ADJECTIVES[g_random_int_range(0, G_N_ELEMENTS(ADJECTIVES))],
                        ANIMALS[g_random_int_range(0, G_N_ELEMENTS(ANIMALS))]);
    struct highest highest = {NULL, 0};

    if (!find_highest(root, "runs", repo, pair, &highest, error) ||
        !find_highest(root, "artifacts", repo, pair, &highest, error))
        return NULL;
    return g_strdup_printf("%s-%" G_GUINT64_FORMAT, pair, highest.number + 1);
}
