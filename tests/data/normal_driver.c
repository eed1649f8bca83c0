/* This reads words from standard input and writes their noise, of scale 1, to standard output, 32 at a time. */
#include <stdio.h>

#include "normal.h"

int main(void)
{
    uint64_t words[NORMAL_GROUP / 2];
    float noise[NORMAL_GROUP];
    while (fread(words, sizeof words, 1, stdin) == 1) {
        noise_groups(words, 1, 1.0f, noise);
        fwrite(noise, sizeof noise, 1, stdout);
    }
    return 0;
}
