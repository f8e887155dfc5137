/* Threads that advance simulated worlds.
 *
 * Nothing of MuJoCo is included: what is called are pointers to functions of the library that Python has
 * loaded, and what is read and written are plain arrays of doubles, so this file fits every version of MuJoCo.
 *
 * A batch is a row of worlds with a flag each. Whoever sets a flag, by atomic exchange, advances that world; the
 * caller takes part and returns when all are finished. So a thread that sleeps through a batch costs nothing, and
 * one that comes late from the last batch takes part in the next. Every thread begins at a place of its own in the
 * row, for a world is stepped faster by the core that has it in its cache. Between batches a thread looks for work
 * for SPIN_NS and then sleeps.
 */

#define _GNU_SOURCE
#include <fenv.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SPIN_NS 250000 /* a little more than lies between the calls of a loop that does nothing else */

typedef void (*physics)(const void *model, void *data);

/* What one call does; mirrored by `_Plan` in worlds.py. A row of `worlds` is the address of the model, of the
 * data, of every array to be written before the steps, and of every array to be copied out after them. */
struct plan {
    physics begin, step, finish;    /* begin: before anything is written, finish: after the last step; or NULL */
    int64_t segments, targets, sources;
    const int64_t *repeats;         /* (segments) steps after each row of what is written */
    const int64_t *sizes;           /* (targets + sources) doubles to copy into and from each array */
    const uintptr_t *worlds;        /* (all worlds, 2 + targets + sources) */
    const int64_t *slots;           /* (n) which worlds */
    const double *given;            /* (n, segments, sum of the targets' sizes) */
    double *rows;                   /* (n, sum of the sources' sizes) */
};

struct helper {
    struct pool *pool;
    int number; /* from 1; 0 is the caller */
    pthread_t thread;
};

struct pool {
    pthread_mutex_t lock, error_lock;
    pthread_cond_t work, finished;
    int worlds, wanted, started; /* most in a batch; helpers */
    pid_t owner;
    const struct plan *plan;
    fenv_t arithmetic;
    atomic_int count, unclaimed, unfinished, sleeping, waiting, stop;
    atomic_char *claimed; /* one flag for each world that a batch may have; all set between batches */
    struct helper *helpers;
    char error[512];
};

/* ------------------------------------------------------------------------------------------ one world */

static _Thread_local jmp_buf *escape;
static _Thread_local char message[512];
static void (*other_handler)(const char *);

/* MuJoCo calls this instead of ending the process. */
static void on_error(const char *text) {
    if (escape) {
        snprintf(message, sizeof message, "%s", text);
        _longjmp(*escape, 1);
    }
    if (other_handler) {
        other_handler(text);
    } else {
        fprintf(stderr, "MuJoCo: %s\n", text);
        exit(EXIT_FAILURE);
    }
}

/* Take the place of MuJoCo's error handler, given the address of its variable. */
void robopol_catch_errors(void (**handler)(const char *)) {
    if (*handler != on_error) {
        other_handler = *handler;
        *handler = on_error;
    }
}

static int64_t total(const int64_t *sizes, int64_t count) {
    int64_t sum = 0;
    while (count--) sum += *sizes++;
    return sum;
}

static void advance_world(const struct plan *plan, int64_t i) {
    const int64_t *in = plan->sizes, *out = in + plan->targets;
    const uintptr_t *world = plan->worlds + plan->slots[i] * (2 + plan->targets + plan->sources);
    const uintptr_t *targets = world + 2, *sources = targets + plan->targets;
    const void *model = (const void *)world[0];
    void *data = (void *)world[1];
    if (plan->begin) plan->begin(model, data);
    const double *given = plan->given + i * plan->segments * total(in, plan->targets);
    for (int64_t s = 0; s < plan->segments; s++) {
        for (int64_t t = 0; t < plan->targets; given += in[t++])
            memcpy((void *)targets[t], given, in[t] * sizeof(double));
        for (int64_t k = 0; k < plan->repeats[s]; k++) plan->step(model, data);
    }
    if (plan->finish) plan->finish(model, data);
    double *row = plan->rows + i * total(out, plan->sources);
    for (int64_t s = 0; s < plan->sources; row += out[s++])
        memcpy(row, (const void *)sources[s], out[s] * sizeof(double));
}

static void advance_or_report(struct pool *pool, int64_t i) {
    jmp_buf here;
    escape = &here;
    if (!_setjmp(here)) {
        advance_world(pool->plan, i);
    } else {
        pthread_mutex_lock(&pool->error_lock);
        snprintf(pool->error, sizeof pool->error, "%s", message);
        pthread_mutex_unlock(&pool->error_lock);
    }
    escape = NULL;
}

/* ---------------------------------------------------------------------------------------- the threads */

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    for (int i = 0; i < 16; i++) __builtin_ia32_pause();
#elif defined(__aarch64__)
    for (int i = 0; i < 16; i++) __asm__ volatile("yield");
#endif
}

/* Advance worlds as long as there are unclaimed ones. */
static void work(struct pool *pool, int number) {
    int count = atomic_load(&pool->count), home = (int)((int64_t)number * count / (pool->wanted + 1));
    for (int k = 0; k < count; k++) {
        int i = (home + k) % count;
        if (atomic_load(&pool->claimed[i]) || atomic_exchange(&pool->claimed[i], 1)) continue;
        atomic_fetch_sub(&pool->unclaimed, 1);
        if (number) fesetenv(&pool->arithmetic); /* rounding and denormals as in the caller: the same bits */
        advance_or_report(pool, i);
        if (atomic_fetch_sub(&pool->unfinished, 1) == 1 && atomic_load(&pool->waiting)) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->finished);
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

static int idle(struct pool *pool) { return atomic_load(&pool->unclaimed) <= 0 && !atomic_load(&pool->stop); }

static void *serve(void *argument) {
    struct helper *helper = argument;
    struct pool *pool = helper->pool;
    while (!atomic_load(&pool->stop)) {
        work(pool, helper->number);
        for (int64_t until = now_ns() + SPIN_NS; idle(pool) && now_ns() < until;) pause_briefly();
        if (idle(pool)) {
            pthread_mutex_lock(&pool->lock);
            atomic_fetch_add(&pool->sleeping, 1);
            while (idle(pool)) pthread_cond_wait(&pool->work, &pool->lock);
            atomic_fetch_sub(&pool->sleeping, 1);
            pthread_mutex_unlock(&pool->lock);
        }
    }
    return NULL;
}

/* Start the threads; again in a forked process, which inherits none. */
static void start(struct pool *pool) {
    pthread_mutex_init(&pool->lock, NULL);
    pthread_mutex_init(&pool->error_lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->finished, NULL);
    memset(pool->claimed, 1, pool->worlds);
    atomic_store(&pool->count, 0);
    atomic_store(&pool->unclaimed, 0);
    atomic_store(&pool->sleeping, 0);
    atomic_store(&pool->waiting, 0);
    pool->owner = getpid();
    sigset_t all, before; /* signals are for Python's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (pool->started = 0; pool->started < pool->wanted; pool->started++) {
        struct helper *helper = &pool->helpers[pool->started];
        *helper = (struct helper){.pool = pool, .number = pool->started + 1};
        if (pthread_create(&helper->thread, NULL, serve, helper)) break;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void robopol_pool_free(struct pool *pool) {
    if (pool->owner == getpid()) {
        pthread_mutex_lock(&pool->lock);
        atomic_store(&pool->stop, 1);
        pthread_cond_broadcast(&pool->work);
        pthread_mutex_unlock(&pool->lock);
        for (int i = 0; i < pool->started; i++) pthread_join(pool->helpers[i].thread, NULL);
    }
    free(pool->helpers);
    free(pool->claimed);
    free(pool);
}

/* Return a pool for batches of at most `worlds`, with some threads besides the caller's; NULL without memory. */
struct pool *robopol_pool_new(int worlds, int helpers) {
    struct pool *pool = calloc(1, sizeof *pool);
    if (!pool) return NULL;
    pool->owner = -1;
    pool->claimed = malloc(worlds);
    pool->helpers = calloc(helpers + 1, sizeof *pool->helpers);
    if (!pool->claimed || !pool->helpers) {
        robopol_pool_free(pool);
        return NULL;
    }
    pool->worlds = worlds;
    pool->wanted = helpers;
    start(pool);
    return pool;
}

/* Advance n worlds; return NULL or what MuJoCo complained of, valid until the next call. */
const char *robopol_advance(struct pool *pool, const struct plan *plan, int n) {
    if (pool->owner != getpid()) start(pool);
    pool->plan = plan;
    pool->error[0] = 0;
    fegetenv(&pool->arithmetic);
    atomic_store(&pool->unfinished, n);
    atomic_store(&pool->unclaimed, n);
    atomic_store(&pool->count, n);
    for (int i = 0; i < n; i++) atomic_store(&pool->claimed[i], 0); /* from here on helpers may be at it */
    if (n > 1 && atomic_load(&pool->sleeping)) {
        pthread_mutex_lock(&pool->lock);
        pthread_cond_broadcast(&pool->work);
        pthread_mutex_unlock(&pool->lock);
    }
    work(pool, 0);
    for (int64_t until = now_ns() + SPIN_NS; atomic_load(&pool->unfinished) && now_ns() < until;) pause_briefly();
    if (atomic_load(&pool->unfinished)) {
        pthread_mutex_lock(&pool->lock);
        atomic_store(&pool->waiting, 1);
        while (atomic_load(&pool->unfinished)) pthread_cond_wait(&pool->finished, &pool->lock);
        atomic_store(&pool->waiting, 0);
        pthread_mutex_unlock(&pool->lock);
    }
    return pool->error[0] ? pool->error : NULL;
}
