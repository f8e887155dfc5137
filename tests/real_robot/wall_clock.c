/* The machine's wall clock, stepped by a number of seconds for one process: preloaded where a vendor's client is
   compiled, so that its source of time cannot be patched otherwise. The monotonic clock stays as it is. */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long shift;

void step_wall_clock(long seconds) { shift = seconds; }

int clock_gettime(clockid_t id, struct timespec *t) {
  int status = syscall(SYS_clock_gettime, id, t);
  if (status == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += shift;
  return status;
}

int gettimeofday(struct timeval *t, void *zone) {
  struct timespec now;
  int status = clock_gettime(CLOCK_REALTIME, &now);
  (void)zone;
  t->tv_sec = now.tv_sec;
  t->tv_usec = now.tv_nsec / 1000;
  return status;
}

time_t time(time_t *t) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (t) *t = now.tv_sec;
  return now.tv_sec;
}
