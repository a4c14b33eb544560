// Writes small towers with Spark: each codec and page version, old names of lists, INT96
// timestamps, and the struct that a column of ML vectors is.
//
//     java -cp 'lib/*' make.java FOLDER      (lib: spark-sql_2.13 3.5.9 and what it needs)

import java.io.File;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.sql.Timestamp;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.spark.sql.*;
import org.apache.spark.sql.types.*;

class Make {
    static final int ROWS = 30, DIM = 4;

    static float number(int i, int j) {
        return (((i * 7 + j * 13 + 5) % 101) - 50) / 32f;
    }

    static Dataset<Row> rows(SparkSession spark) {
        StructType vector = new StructType()
            .add("type", DataTypes.ByteType, false)
            .add("size", DataTypes.IntegerType)
            .add("indices", DataTypes.createArrayType(DataTypes.IntegerType, false))
            .add("values", DataTypes.createArrayType(DataTypes.DoubleType, false));
        StructType schema = new StructType()
            .add("app_id", DataTypes.StringType)
            .add("embedding", DataTypes.createArrayType(DataTypes.FloatType))
            .add("features", vector)
            .add("genres", DataTypes.createArrayType(DataTypes.StringType))
            .add("free", DataTypes.BooleanType)
            .add("age", DataTypes.LongType)
            .add("small", DataTypes.ByteType)
            .add("price", DataTypes.DoubleType)
            .add("rating", DataTypes.FloatType)
            .add("money", DataTypes.createDecimalType(12, 2))
            .add("narrow", DataTypes.createDecimalType(7, 2))
            .add("whole", DataTypes.createDecimalType(38, 0))
            .add("when", DataTypes.TimestampType)
            .add("day", DataTypes.DateType)
            .add("binary", DataTypes.BinaryType);
        List<Row> rows = new ArrayList<>();
        for (int i = 0; i < ROWS; i++) {
            List<Float> v = new ArrayList<>();
            for (int j = 0; j < DIM; j++) v.add(number(i, j));
            List<Double> d = new ArrayList<>();
            for (float f : v) d.add((double) f);
            Row features = i % 2 == 1
                ? RowFactory.create((byte) 1, null, null, d)
                : RowFactory.create((byte) 0, DIM, Arrays.asList(0, 2), Arrays.asList(d.get(0), d.get(2)));
            List<String> genres = switch (i % 5) {
                case 0 -> null;
                case 1 -> List.of();
                case 2 -> Arrays.asList("a", null);
                default -> List.of("g" + i % 3, "b");
            };
            boolean some = i % 6 != 2;
            rows.add(RowFactory.create("app-" + i, i == 11 ? null : v, i == 11 ? null : features, genres,
                some ? i % 3 == 0 : null, some ? i * 1_000_003L - 9_000_000 : null, some ? (byte) (i - 15) : null,
                some ? i / 7.0 : null, some ? i / 7f : null,
                some ? BigDecimal.valueOf(i * 12345L - 100_000, 2) : null, some ? BigDecimal.valueOf(i * 123L - 1000, 2) : null,
                some ? BigDecimal.valueOf(i * 12345L - 100_000) : null,
                some ? new Timestamp(1_767_225_600_000L + i * 1_234_567L) : null,
                some ? java.sql.Date.valueOf("2026-01-01") : null, some ? ("b" + i).getBytes() : null));
        }
        return spark.createDataFrame(rows, schema);
    }

    static void write(Dataset<Row> rows, Path folder, String name, String codec, String... options) throws Exception {
        Path part = Files.createTempDirectory("spark").resolve("out");
        DataFrameWriter<Row> w = rows.coalesce(1).write().option("compression", codec);
        for (int i = 0; i < options.length; i += 2) w = w.option(options[i], options[i + 1]);
        w.parquet(part.toString());
        for (File f : part.toFile().listFiles((d, n) -> n.endsWith(".parquet")))
            Files.move(f.toPath(), folder.resolve("spark-" + name + ".parquet"), StandardCopyOption.REPLACE_EXISTING);
    }

    public static void main(String[] args) throws Exception {
        Path folder = Path.of(args[0]);
        SparkSession spark = SparkSession.builder().master("local[1]").config("spark.ui.enabled", false)
            .config("spark.sql.session.timeZone", "UTC").config("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS").getOrCreate();
        Dataset<Row> rows = rows(spark);
        for (String codec : new String[] {"none", "snappy", "gzip", "zstd", "lz4", "lz4raw"})
            for (String version : new String[] {"v1", "v2"})
                write(rows, folder, codec + "-" + version, codec, "parquet.writer.version", version, "parquet.block.size", "2048", "parquet.page.size", "256");
        spark.conf().set("spark.sql.parquet.writeLegacyFormat", true);
        spark.conf().set("spark.sql.parquet.outputTimestampType", "INT96");
        write(rows, folder, "legacy", "snappy");
        spark.stop();
    }
}
