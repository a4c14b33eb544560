// Faiss's IndexHNSWFlat, from the system's library, as the system compiled it.
#include "driver.hpp"

#include <faiss/IndexHNSW.h>
#include <faiss/impl/IDSelector.h>
#include <omp.h>

namespace {

class Faiss : public driver::Engine {
  public:
    void build(const driver::Matrix& base, const driver::Config& c) override {
        index_ = std::make_unique<faiss::IndexHNSWFlat>(
            int(base.dim), int(c.m), c.inner_product ? faiss::METRIC_INNER_PRODUCT : faiss::METRIC_L2);
        index_->hnsw.efConstruction = int(c.ef_construction);
        omp_set_num_threads(int(c.threads));
        index_->add(faiss::Index::idx_t(base.rows), base.data.data());
        omp_set_num_threads(1);
    }

    void set_ef(size_t ef) override {
        index_->hnsw.efSearch = int(ef);
        filtered_.efSearch = int(ef);
    }

    void allow(const driver::Eligible* eligible) override {
        selector_.reset();
        if (eligible)
            selector_ = std::make_unique<faiss::IDSelectorBitmap>(
                eligible->words.size() * sizeof(uint64_t), reinterpret_cast<const uint8_t*>(eligible->words.data()));
        filtered_.sel = selector_.get();
    }

    size_t search(const float* query, size_t k, int32_t* rows) override {
        labels_.resize(k);
        scores_.resize(k);
        size_t before = faiss::hnsw_stats.ndis;
        index_->search(1, query, faiss::Index::idx_t(k), scores_.data(), labels_.data(),
                       selector_ ? &filtered_ : nullptr);
        // Some versions never count.
        distances_ = faiss::hnsw_stats.ndis == before ? -1 : int64_t(faiss::hnsw_stats.ndis - before);
        size_t n = 0;
        while (n < k && labels_[n] >= 0) {
            rows[n] = int32_t(labels_[n]);
            n++;
        }
        return n;
    }

    int64_t distances() override { return distances_; }

  private:
    std::unique_ptr<faiss::IndexHNSWFlat> index_;
    std::unique_ptr<faiss::IDSelectorBitmap> selector_;
    faiss::SearchParametersHNSW filtered_;
    std::vector<faiss::Index::idx_t> labels_;
    std::vector<float> scores_;
    int64_t distances_ = -1;
};

}  // namespace

TANDEM_DRIVER(Faiss)
