from cpython.object cimport PyObject


cdef extern from *:
    """
    #include <time.h>
    #include <frameobject.h>

    #ifdef HAVE_FORK
      #include <pthread.h>
      #include <unistd.h>
      #define gcp_call_in_child(f) ((void)pthread_atfork(NULL, NULL, (f)))
      #define gcp_process_id() ((long)getpid())
    #else
      #define gcp_call_in_child(f) ((void)(f))
      #define gcp_process_id() 0L
    #endif

    /* Whether the interpreter is ending. Threads that it has stopped may hold locks for good. */
    #if PY_VERSION_HEX >= 0x030D0000
      #define gcp_is_finalizing() Py_IsFinalizing()
    #else
      #define gcp_is_finalizing() _Py_IsFinalizing()
    #endif

    /* Takes a reference that is never given back. Needs no thread state, and is not atomic: it is for a forked child,
       which has one thread. */
    #define gcp_keep_for_good(o) Py_SET_REFCNT((PyObject *)(o), Py_REFCNT((PyObject *)(o)) + 1)

    #ifdef Py_GIL_DISABLED
      typedef PyMutex gcp_mutex;
      #define gcp_is_locked(m) ((m)->_bits & 1)
      #define gcp_lock(m) PyMutex_Lock(m)
      #define gcp_unlock(m) PyMutex_Unlock(m)
      /* Takes the lock if it is free. */
      static inline int gcp_try_lock(gcp_mutex *m) {
          uint8_t unlocked = 0;
          return _Py_atomic_compare_exchange_uint8(&m->_bits, &unlocked, 1);
      }
      /* With one shard, threads that look up different endpoints would wait for the same lock. The padding keeps each
         shard's lock in a pair of cache lines of its own: the processor fetches them in pairs. */
      enum { GCP_SHARDS = 16, GCP_SHARD_PADDING = 87, GCP_SHARED_STAMP = 0 };
      typedef struct { double use_time; unsigned long long stamp; } gcp_marks;
      #define gcp_next_stamp(shared, marks) (++(marks)->stamp)
      #define gcp_load_char(p) _Py_atomic_load_int8_relaxed((int8_t *)(p))
      #define gcp_store_char(p, v) _Py_atomic_store_int8_relaxed((int8_t *)(p), (v))
      #define gcp_load_int(p) _Py_atomic_load_int_relaxed(p)
      #define gcp_store_int(p, v) _Py_atomic_store_int_relaxed((p), (v))
      /* A thread that reads the number also sees what was written before the number was stored. */
      #define gcp_publish_int(p, v) _Py_atomic_store_int_release((p), (v))
      #define gcp_change_int(p, from, to) _Py_atomic_compare_exchange_int((p), &(int){from}, (to))
      /* Two threads that each write, pass this, and then read what the other one writes: at least one of them sees the
         other's write. */
      #define gcp_fence() _Py_atomic_fence_seq_cst()
      #define gcp_count_up(p) ((void)_Py_atomic_add_uint64((uint64_t *)(p), 1))
      #define gcp_load_ulonglong(p) _Py_atomic_load_uint64_relaxed((uint64_t *)(p))
      #define gcp_load_uint(p) _Py_atomic_load_uint_relaxed(p)
      #define gcp_store_uint(p, v) _Py_atomic_store_uint_relaxed((p), (v))
      static inline double gcp_load_double(double *p) {
          union { int64_t i; double d; } u;
          u.i = _Py_atomic_load_int64_relaxed((int64_t *)p);
          return u.d;
      }
      static inline void gcp_store_double(double *p, double v) {
          union { int64_t i; double d; } u;
          u.d = v;
          _Py_atomic_store_int64_relaxed((int64_t *)p, u.i);
      }
    #else
      typedef unsigned char gcp_mutex;
      #define gcp_is_locked(m) 0
      enum { GCP_SHARDS = 1, GCP_SHARD_PADDING = 7, GCP_SHARED_STAMP = 1 };
      typedef struct { double use_time; } gcp_marks;
      #define gcp_next_stamp(shared, marks) (++*(shared))
      #ifdef GCPOOL_ASSERT
        /* Python code that runs inside a locked region is caught here, when it calls the core again. */
        static void gcp_lock(gcp_mutex *m) {
            if (*m) Py_FatalError("gcpool: the lock is already taken: Python code ran under it");
            *m = 1;
        }
        static void gcp_unlock(gcp_mutex *m) {
            if (!*m) Py_FatalError("gcpool: the lock is not taken");
            *m = 0;
        }
      #else
        #define gcp_lock(m) ((void)(m))
        #define gcp_unlock(m) ((void)(m))
      #endif
      #define gcp_try_lock(m) (gcp_lock(m), 1)
      #define gcp_load_char(p) (*(p))
      #define gcp_store_char(p, v) (*(p) = (v))
      #define gcp_load_int(p) (*(p))
      #define gcp_store_int(p, v) (*(p) = (v))
      #define gcp_publish_int(p, v) (*(p) = (v))
      #define gcp_change_int(p, from, to) (*(p) == (from) ? (*(p) = (to), 1) : 0)
      #define gcp_fence() ((void)0)
      #define gcp_count_up(p) ((void)++*(p))
      #define gcp_load_ulonglong(p) (*(p))
      #define gcp_load_uint(p) (*(p))
      #define gcp_store_uint(p, v) (*(p) = (v))
      #define gcp_load_double(p) (*(p))
      #define gcp_store_double(p, v) (*(p) = (v))
    #endif

    /* TRY TO TAKE A REFERENCE to an object that is known by its address. False if the object's destructor already runs.
       Without the GIL the destructor may be waiting for a lock that the caller holds, and frees the object afterwards,
       whatever references were taken meanwhile. Needs Cython 3.3: before, an object in its __dealloc__ has a reference
       that looks like any other. */
    #if defined(Py_GIL_DISABLED) && PY_VERSION_HEX >= 0x030E0000
      #define gcp_enable_try_incref(o) PyUnstable_EnableTryIncRef(o)
      #define gcp_try_incref(p) PyUnstable_TryIncRef((PyObject *)(p))
    #else
      #define gcp_enable_try_incref(o) ((void)(o))
      #define gcp_try_incref(p) (Py_INCREF((PyObject *)(p)), 1)
    #endif

    /* The same pointer, as an object: the caller owns the reference. A cast in Cython would take another one. */
    #define gcp_owned(p) (p)

    /* The least n such that a time is at most 2 ** n seconds. For numbers above 0. */
    static inline int gcp_ceiling_exponent(double seconds) {
        unsigned long long bits;
        memcpy(&bits, &seconds, sizeof(bits));
        return (int)((bits - 1) >> 52) - 1022;
    }

    /* A variable that each thread has. */
    #if defined(_MSC_VER)
      #define GCP_THREAD_LOCAL __declspec(thread)
    #else
      #define GCP_THREAD_LOCAL __thread
    #endif
    static GCP_THREAD_LOCAL void *gcp_mark_of_thread = NULL;
    #define gcp_thread_mark() gcp_mark_of_thread
    #define gcp_set_thread_mark(p) ((void)(gcp_mark_of_thread = (p)))

    /* WHERE THE CALLER IS: its innermost frames, as code objects, which the caller owns, and offsets of instructions in
       these. No frame is kept, because a frame keeps all local variables alive.

       For a call the interpreter makes a small record. A frame object, as PyThreadState_GetFrame() returns it, is made
       on request, and costs some 50 ns. From CPython 3.13 on the records are read instead: the thread's state refers to
       the first, the second word of each is its caller, and functions that CPython exports for that return the rest.
       That a caller is the second word holds for 3.13 and 3.14; for a later version frame objects are used until that
       is verified. */
    #if PY_VERSION_HEX >= 0x030D0000 && PY_VERSION_HEX < 0x030F0000 && !defined(GRAALVM_PYTHON)
    struct gcp_call {
        void *executable;
        struct gcp_call *caller;
    };
    static int gcp_walk_frames(PyObject **codes, int *offsets, int limit, void *outside) {
        int count = 0;
        struct gcp_call *call = (struct gcp_call *)PyThreadState_Get()->current_frame;
        for (; call != NULL && count < limit; call = call->caller) {
            struct _PyInterpreterFrame *frame = (struct _PyInterpreterFrame *)call;
            PyObject *code = PyUnstable_InterpreterFrame_GetCode(frame);
            if (!PyCode_Check(code)) {          /* a call of C code that calls Python */
                Py_DECREF(code);
                continue;
            }
            if ((void *)code == outside) {      /* from here on, no frame belongs to a task */
                Py_DECREF(code);
                break;
            }
            codes[count] = code;
            offsets[count++] = PyUnstable_InterpreterFrame_GetLasti(frame);
        }
        return count;
    }
    #else
      #if PY_VERSION_HEX >= 0x030B0000
        #define gcp_instruction(frame) PyFrame_GetLasti(frame)
      #else
        #define gcp_instruction(frame) ((frame)->f_lasti * 2)
      #endif
    static int gcp_walk_frames(PyObject **codes, int *offsets, int limit, void *outside) {
        int count = 0;
        PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get());
        while (frame != NULL) {
            PyFrameObject *back = NULL;
            PyObject *code = (PyObject *)PyFrame_GetCode(frame);
            if ((void *)code == outside) {      /* as above */
                Py_DECREF(code);
                Py_DECREF(frame);
                break;
            }
            codes[count] = code;
            offsets[count++] = gcp_instruction(frame);
            if (count < limit) back = PyFrame_GetBack(frame);
            Py_DECREF(frame);
            frame = back;
        }
        return count;
    }
    #endif

    #define gcp_line_of(code, offset) PyCode_Addr2Line((PyCodeObject *)(code), (offset))

    /* How many references there are to an object. Without the GIL, others may change that meanwhile. */
    #define gcp_reference_count(o) ((Py_ssize_t)Py_REFCNT((PyObject *)(o)))

    /* A number in place of two links, which are not in use. */
    static inline void gcp_put_double(void **links, double value) { memcpy((void *)links, &value, sizeof(double)); }
    static inline double gcp_get_double(void **links) {
        double value;
        memcpy(&value, (void *)links, sizeof(double));
        return value;
    }

    /* Prefetches a cache line before it is used; tells the compiler which way a branch rarely goes. */
    #if defined(__GNUC__) || defined(__clang__)
      #define gcp_likely(c) __builtin_expect(!!(c), 1)
      #define gcp_unlikely(c) __builtin_expect(!!(c), 0)
      #define gcp_prefetch(p) __builtin_prefetch((const char *)(p))
    #else
      #define gcp_likely(c) (c)
      #define gcp_unlikely(c) (c)
      #define gcp_prefetch(p) ((void)(p))
    #endif

    #ifdef GCPOOL_ASSERT
      #define gcp_assert(c) do { if (!(c)) Py_FatalError("gcpool: assertion failed: " #c); } while (0)
    #else
      #define gcp_assert(c) ((void)0)
    #endif

    /* Monotonic seconds, on one time line. Where the system has a coarse clock, that lags by a timer tick (some ms) and
       costs a fifth of the exact one; elsewhere the two are the same. */
    #if defined(_WIN32)
      #define WIN32_LEAN_AND_MEAN
      #include <windows.h>
      static double gcp_monotonic(void) {
          static double scale = 0.0;
          LARGE_INTEGER v;
          if (scale == 0.0) { QueryPerformanceFrequency(&v); scale = 1.0 / (double)v.QuadPart; }
          QueryPerformanceCounter(&v);
          return (double)v.QuadPart * scale;
      }
      #define gcp_monotonic_coarse gcp_monotonic
    #else
      static inline double gcp_read_clock(clockid_t id) {
          struct timespec t;
          clock_gettime(id, &t);
          return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
      }
      #if defined(__APPLE__)
        static double gcp_monotonic(void) { return gcp_read_clock(CLOCK_UPTIME_RAW); }
        static double gcp_monotonic_coarse(void) { return gcp_read_clock(CLOCK_UPTIME_RAW_APPROX); }
      #elif defined(CLOCK_MONOTONIC_COARSE)
        static double gcp_monotonic(void) { return gcp_read_clock(CLOCK_MONOTONIC); }
        static double gcp_monotonic_coarse(void) { return gcp_read_clock(CLOCK_MONOTONIC_COARSE); }
      #else
        static double gcp_monotonic(void) { return gcp_read_clock(CLOCK_MONOTONIC); }
        static double gcp_monotonic_coarse(void) { return gcp_read_clock(CLOCK_MONOTONIC); }
      #endif
    #endif
    """
    ctypedef struct gcp_mutex:
        pass
    ctypedef struct gcp_marks:
        double use_time
    unsigned long long gcp_next_stamp(unsigned long long *shared, gcp_marks *) noexcept nogil
    void *gcp_thread_mark() noexcept nogil
    void gcp_set_thread_mark(void *) noexcept nogil
    int gcp_walk_frames(PyObject **codes, int *offsets, int limit, void *outside) noexcept
    int gcp_line_of(PyObject *code, int offset) noexcept
    Py_ssize_t gcp_reference_count(void *) noexcept
    int gcp_ceiling_exponent(double) noexcept nogil
    void gcp_count_up(unsigned long long *) noexcept nogil
    unsigned long long gcp_load_ulonglong(unsigned long long *) noexcept nogil
    void gcp_put_double(void **, double) noexcept nogil
    double gcp_get_double(void **) noexcept nogil
    void gcp_lock(gcp_mutex *) noexcept nogil
    void gcp_unlock(gcp_mutex *) noexcept nogil
    bint gcp_try_lock(gcp_mutex *) noexcept nogil
    bint gcp_is_locked(gcp_mutex *) noexcept nogil
    void gcp_call_in_child(void (*)() noexcept) noexcept
    long gcp_process_id() noexcept nogil
    bint gcp_is_finalizing() noexcept
    void gcp_keep_for_good(void *) noexcept nogil
    char gcp_load_char(char *) noexcept nogil
    void gcp_store_char(char *, char) noexcept nogil
    int gcp_load_int(int *) noexcept nogil
    void gcp_store_int(int *, int) noexcept nogil
    void gcp_publish_int(int *, int) noexcept nogil
    bint gcp_change_int(int *, int from_, int to) noexcept nogil
    void gcp_fence() noexcept nogil
    unsigned int gcp_load_uint(unsigned int *) noexcept nogil
    void gcp_store_uint(unsigned int *, unsigned int) noexcept nogil
    void gcp_enable_try_incref(object) noexcept
    bint gcp_try_incref(void *) noexcept nogil
    double gcp_load_double(double *) noexcept nogil
    void gcp_store_double(double *, double) noexcept nogil
    void gcp_assert(bint) noexcept nogil
    void gcp_prefetch(void *) noexcept nogil
    bint gcp_likely(bint) noexcept nogil
    bint gcp_unlikely(bint) noexcept nogil
    double gcp_monotonic() noexcept nogil
    double gcp_monotonic_coarse() noexcept nogil
    enum: GCP_SHARDS
    enum: GCP_SHARD_PADDING
    enum: GCP_SHARED_STAMP
