/* What may stand at a place of the command line: for the shells' completion.
 *
 * shape:  everything comes from the commands' own tables: their names, their options, and the words
 *         of their usage ("RUN|:TAG [PREFIX]"), each of which is a kind of name.
 * limits: what a remote has is left out when it does not answer within a second. Nothing is ever
 *         said on stderr.
 */
#pragma once

enum { COMPLETE_FILES = 3 };

/* WORDS are those behind "dstack", the last being the one to complete. Prints one candidate a line,
 * some with a tab and a description. Returns 0, or COMPLETE_FILES: names of files belong there. */
int complete_words(char **words);
