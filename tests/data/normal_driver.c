/* Words on standard input, normals on standard output, 32 of each at a time. */
#include <stdio.h>

#include "normal.h"

int main(void)
{
    uint64_t words[NORMAL_GROUP / 2];
    float normals[NORMAL_GROUP];
    while (fread(words, sizeof words, 1, stdin) == 1) {
        normal_group(words, normals);
        fwrite(normals, sizeof normals, 1, stdout);
    }
    return 0;
}
