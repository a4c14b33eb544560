// What all drivers share: the protocol by which `tandem bench engines` and `tandem
// bench filters` ask an engine, see README.md. A driver includes this, derives from Engine and ends
// with TANDEM_DRIVER(its class).
#pragma once

#include <malloc.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace driver {

// Matrix holds the rows of an .fbin file: uint32 rows, uint32 dimension, then
// float32 numbers, all little-endian.
struct Matrix {
    size_t rows = 0, dim = 0;
    std::vector<float> data;
    const float* row(size_t i) const { return data.data() + i * dim; }
};

inline Matrix read_fbin(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    uint32_t head[2];
    if (!in.read(reinterpret_cast<char*>(head), sizeof head))
        throw std::runtime_error("read " + path + ": no header");
    Matrix m;
    m.rows = head[0];
    m.dim = head[1];
    m.data.resize(m.rows * m.dim);
    if (!in.read(reinterpret_cast<char*>(m.data.data()), std::streamsize(m.data.size() * sizeof(float))))
        throw std::runtime_error("read " + path + ": shorter than its header says");
    return m;
}

struct Config {
    std::string base, queries;
    bool inner_product = false;  // else squared L2
    size_t m = 16, ef_construction = 200, threads = 1;
};

// Eligible is a set of rows that a search may return: bit i%64 of word i/64 is
// row i.
struct Eligible {
    std::vector<uint64_t> words;
    bool has(size_t row) const { return words[row >> 6] >> (row & 63) & 1; }
};

// Engine is what a driver implements.
class Engine {
  public:
    virtual ~Engine() = default;
    virtual void build(const Matrix& base, const Config& config) = 0;
    virtual void set_ef(size_t ef) = 0;
    // allow makes the searches that follow return eligible rows only, which live
    // until the next call; nullptr lifts that.
    virtual void allow(const Eligible* eligible) {
        if (eligible) throw std::runtime_error("this engine has no search among eligible rows");
    }
    // search writes up to k rows, best first, and returns how many.
    virtual size_t search(const float* query, size_t k, int32_t* rows) = 0;
    // count_distances is called before and after searches that are not timed; the
    // engine may then take a slower path that counts.
    virtual void count_distances(bool) {}
    // distances returns those of the last search, or -1 if it cannot tell.
    virtual int64_t distances() { return -1; }
};

// each calls f(0) alone, which makes the entry point, and the other rows by
// that many threads.
inline void each(size_t rows, size_t threads, const std::function<void(size_t row, size_t thread)>& f) {
    if (rows == 0) return;
    f(0, 0);
    std::atomic<size_t> next{1};
    std::vector<std::thread> workers;
    std::exception_ptr failed;
    std::atomic<bool> any{false};
    auto work = [&](size_t thread) {
        try {
            for (size_t row; !any && (row = next++) < rows;) f(row, thread);
        } catch (...) {
            if (!any.exchange(true)) failed = std::current_exception();
        }
    };
    for (size_t t = 1; t < threads; t++) workers.emplace_back(work, t);
    work(0);
    for (auto& w : workers) w.join();
    if (failed) std::rethrow_exception(failed);
}

// resident returns the bytes of memory that the process has in RAM.
inline int64_t resident() {
    malloc_trim(0);
    std::ifstream in("/proc/self/statm");
    int64_t size = 0, pages = 0;
    in >> size >> pages;
    return pages * sysconf(_SC_PAGESIZE);
}

inline double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// read_eligible reads the words that follow an eligible command.
inline std::unique_ptr<Eligible> read_eligible(size_t words, size_t rows) {
    if (words == 0) return nullptr;
    if (words != (rows + 63) / 64) throw std::runtime_error("eligible set is not of this base");
    auto set = std::make_unique<Eligible>();
    set->words.resize(words);
    if (!std::cin.read(reinterpret_cast<char*>(set->words.data()), std::streamsize(words * sizeof(uint64_t))))
        throw std::runtime_error("eligible set is cut short");
    return set;
}

template <typename T>
void write_all(const std::vector<T>& v) {
    if (fwrite(v.data(), sizeof(T), v.size(), stdout) != v.size()) throw std::runtime_error("write answer");
}

inline Config parse(int argc, char** argv) {
    Config c;
    for (int i = 1; i + 1 < argc; i += 2) {
        std::string name = argv[i], value = argv[i + 1];
        if (name == "--base") c.base = value;
        else if (name == "--queries") c.queries = value;
        else if (name == "--metric" && (value == "ip" || value == "l2")) c.inner_product = value == "ip";
        else if (name == "--m") c.m = std::stoul(value);
        else if (name == "--ef-construction") c.ef_construction = std::stoul(value);
        else if (name == "--threads") c.threads = std::stoul(value);
        else throw std::runtime_error("unknown argument " + name + " " + value);
    }
    if (argc % 2 == 0 || c.base.empty() || c.queries.empty())
        throw std::runtime_error("want --base FILE --queries FILE [--metric l2|ip] [--m N] [--ef-construction N] [--threads N]");
    return c;
}

inline void serve(Engine& engine, const Config& config) {
    Matrix queries = read_fbin(config.queries);
    size_t rows;
    {
        Matrix base = read_fbin(config.base);
        if (base.dim != queries.dim) throw std::runtime_error("base and queries differ in dimension");
        rows = base.rows;
        int64_t before = resident();
        auto start = std::chrono::steady_clock::now();
        engine.build(base, config);
        double took = seconds_since(start);
        printf("ready %.6f %lld\n", took, (long long)(resident() - before));
        fflush(stdout);
    }
    malloc_trim(0);

    std::unique_ptr<Eligible> eligible;
    std::string line;
    while (std::getline(std::cin, line)) {
        if (line == "quit") return;
        size_t words;
        if (sscanf(line.c_str(), "eligible %zu", &words) == 1) {
            auto next = read_eligible(words, rows);
            engine.allow(next.get());
            eligible = std::move(next);
            size_t n = 0;
            for (size_t i = 0; i < rows; i++) n += !eligible || eligible->has(i);
            printf("eligible %zu\n", n);
            fflush(stdout);
            continue;
        }
        size_t ef, k, first, count;
        int counting;
        if (sscanf(line.c_str(), "search %zu %zu %zu %zu %d", &ef, &k, &first, &count, &counting) != 5)
            throw std::runtime_error("unknown command: " + line);
        if (k == 0 || first > queries.rows || count > queries.rows - first)
            throw std::runtime_error("out of range: " + line);
        engine.set_ef(ef);
        engine.count_distances(counting != 0);
        std::vector<int32_t> found(count * k, -1);
        std::vector<int64_t> nanos(count), distances(count);
        for (size_t i = 0; i < count; i++) {
            auto start = std::chrono::steady_clock::now();
            engine.search(queries.row(first + i), k < rows ? k : rows, &found[i * k]);
            auto stop = std::chrono::steady_clock::now();
            nanos[i] = std::chrono::duration_cast<std::chrono::nanoseconds>(stop - start).count();
            distances[i] = counting ? engine.distances() : -1;
        }
        engine.count_distances(false);
        printf("answer %zu %zu\n", count, k);
        write_all(found);
        write_all(nanos);
        write_all(distances);
        fflush(stdout);
    }
}

template <typename E>
int run(int argc, char** argv) {
    try {
        Config config = parse(argc, argv);
        E engine;
        serve(engine, config);
        return 0;
    } catch (const std::exception& e) {
        std::cerr << e.what() << std::endl;
        return 1;
    }
}

}  // namespace driver

#define TANDEM_DRIVER(E) \
    int main(int argc, char** argv) { return driver::run<E>(argc, argv); }
