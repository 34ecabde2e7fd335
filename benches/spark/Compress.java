import com.mongodb.WriteConcern;
import com.mongodb.client.MongoClient;
import com.mongodb.client.MongoClients;
import com.mongodb.client.MongoCollection;
import com.mongodb.client.model.Indexes;
import com.mongodb.client.model.InsertManyOptions;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.Serializable;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.zip.CRC32;
import java.util.zip.Deflater;
import org.apache.hadoop.fs.FSDataInputStream;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.spark.TaskContext;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.deploy.SparkHadoopUtil;
import org.apache.spark.sql.SparkSession;
import org.bson.BsonBinary;
import org.bson.BsonBinaryWriter;
import org.bson.BsonDateTime;
import org.bson.BsonDocument;
import org.bson.BsonDouble;
import org.bson.BsonInt64;
import org.bson.BsonString;
import org.bson.codecs.BsonDocumentCodec;
import org.bson.codecs.EncoderContext;
import org.bson.io.BasicOutputBuffer;

/**
 * The batch job in the JVM's strongest form: no Python, no rows. Each task streams its split of an object through Hadoop's file system
 * and one Deflater, whose memory is reused, and holds two chunks.
 *
 * Usage: spark-submit --class Compress JAR INPUT OUTPUT
 */
public final class Compress {
    static final int CHUNK_BYTES = 1 << 20;
    /** The seed's partition size, as Baler's. */
    static final long SPLIT_BYTES = 128 << 20;
    /** A batch of insertMany: the seed's number of documents, and no more bytes than Baler sends at once. */
    static final int BATCH_DOCS = 1000, BATCH_BYTES = 16 << 20;

    /** Bytes of an object, up to the line's end behind `end`. */
    record Split(String path, String object, String version, long modified, long start, long end) implements Serializable {}

    /** Where documents go. */
    interface Sink extends AutoCloseable {
        void write(BsonDocument document) throws IOException;

        @Override
        void close() throws IOException;
    }

    public static void main(String[] arguments) throws Exception {
        String target = arguments[1];
        if (target.startsWith("mongodb://")) {
            try (Collection sink = new Collection(target)) {
                sink.collection.createIndex(Indexes.ascending("compression_ratio"));
                sink.collection.createIndex(Indexes.ascending("timestamp"));
            }
        }
        SparkSession spark = SparkSession.builder().appName("compress").getOrCreate();
        JavaSparkContext context = new JavaSparkContext(spark.sparkContext());
        org.apache.hadoop.fs.Path source = new org.apache.hadoop.fs.Path(arguments[0]);
        FileSystem files = source.getFileSystem(context.hadoopConfiguration());
        List<Split> splits = new ArrayList<>();
        for (FileStatus file : files.listStatus(source)) {
            String path = file.getPath().toString(), object = path.replaceFirst("^file:/+", "file:///");
            String version = file.getLen() + "-" + file.getModificationTime();
            for (long start = 0; start < file.getLen(); start += SPLIT_BYTES) {
                long end = Math.min(start + SPLIT_BYTES, file.getLen());
                splits.add(new Split(path, object, version, file.getModificationTime(), start, end));
            }
        }
        System.out.println(context.parallelize(splits, splits.size()).map(split -> compress(split, target)).reduce(Long::sum) + " documents");
        spark.stop();
    }

    static long compress(Split split, String target) throws Exception {
        org.apache.hadoop.fs.Path path = new org.apache.hadoop.fs.Path(split.path());
        Deflater deflater = new Deflater(9);
        byte[] raw = new byte[CHUNK_BYTES], packed = new byte[CHUNK_BYTES + CHUNK_BYTES / 1000 + 64];
        long documents = 0;
        try (FSDataInputStream input = path.getFileSystem(SparkHadoopUtil.get().conf()).open(path);
                Sink sink = open(target, String.format("%05d", TaskContext.getPartitionId()))) {
            long at = lineStart(input, split.start());
            input.seek(Math.min(at, split.end()));
            int held = 0;
            while (at < split.end()) {
                int read = input.readNBytes(raw, held, CHUNK_BYTES - held);
                held += read;
                int length = held < CHUNK_BYTES ? held : cut(raw, held);
                if (at + length > split.end()) {
                    length = lastLine(raw, length, (int) (split.end() - at));
                }
                sink.write(document(split, at, Arrays.copyOf(raw, length), deflater, packed));
                documents++;
                held -= length;
                System.arraycopy(raw, length, raw, 0, held);
                at += length;
            }
        } finally {
            deflater.end();
        }
        return documents;
    }

    /** The first line's start at or behind an offset. */
    static long lineStart(FSDataInputStream input, long offset) throws IOException {
        if (offset == 0) {
            return 0;
        }
        input.seek(offset - 1);
        byte[] piece = new byte[1 << 16];
        for (long at = offset - 1, read; (read = input.read(piece)) > 0; at += read) {
            for (int place = 0; place < read; place++) {
                if (piece[place] == '\n') {
                    return at + place + 1;
                }
            }
        }
        return Long.MAX_VALUE;
    }

    /** The length up to the last line's end; all of it, where there is none. */
    static int cut(byte[] raw, int length) {
        int end = length;
        while (end > 0 && raw[end - 1] != '\n') {
            end--;
        }
        return end > 0 ? end : length;
    }

    /** The length up to the first line's end at or behind a place; all of it, where there is none. */
    static int lastLine(byte[] raw, int length, int place) {
        int end = Math.max(place, 1);
        while (end < length && raw[end - 1] != '\n') {
            end++;
        }
        return end;
    }

    static BsonDocument document(Split split, long offset, byte[] raw, Deflater deflater, byte[] packed) throws Exception {
        deflater.reset();
        deflater.setInput(raw);
        deflater.finish();
        byte[] data = Arrays.copyOf(packed, deflater.deflate(packed));
        CRC32 checksum = new CRC32();
        checksum.update(raw);
        long records = 0;
        for (byte letter : raw) {
            records += letter == '\n' ? 1 : 0;
        }
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        byte[] id = digest.digest(String.join("\0", split.object(), split.version(), Long.toString(offset)).getBytes(StandardCharsets.UTF_8));
        return new BsonDocument("_id", new BsonString(HexFormat.of().formatHex(id, 0, 16)))
                .append("object", new BsonString(split.object()))
                .append("version", new BsonString(split.version()))
                .append("byte_offset", new BsonInt64(offset))
                .append("records", new BsonInt64(records))
                .append("original_size", new BsonInt64(raw.length))
                .append("compressed_size", new BsonInt64(data.length))
                .append("compression_ratio", new BsonDouble((double) raw.length / data.length))
                .append("codec", new BsonString("zlib"))
                .append("level", new BsonInt64(9))
                .append("crc32", new BsonInt64(checksum.getValue()))
                .append("timestamp", new BsonDateTime(split.modified()))
                .append("data", new BsonBinary(data));
    }

    /** A collection by its URL; else the part `name` of a dump in that folder. */
    static Sink open(String target, String name) throws IOException {
        return target.startsWith("mongodb://") ? new Collection(target) : new Dump(Path.of(target, "compressed_data"), name);
    }

    /** One file of BSON documents, which has its name when it is whole and on the disk. */
    static final class Dump implements Sink {
        private final Path path, unfinished;
        private final FileOutputStream file;
        private final BsonDocumentCodec codec = new BsonDocumentCodec();

        Dump(Path folder, String name) throws IOException {
            Files.createDirectories(folder);
            path = folder.resolve("documents." + name + ".bson");
            unfinished = folder.resolve("documents." + name + ".bson.part");
            file = new FileOutputStream(unfinished.toFile());
        }

        @Override
        public void write(BsonDocument document) throws IOException {
            BasicOutputBuffer buffer = new BasicOutputBuffer(document.getBinary("data").getData().length + 1024);
            codec.encode(new BsonBinaryWriter(buffer), document, EncoderContext.builder().build());
            file.write(buffer.getInternalBuffer(), 0, buffer.getPosition());
        }

        @Override
        public void close() throws IOException {
            file.getFD().sync();
            file.close();
            Files.move(unfinished, path);
        }
    }

    /** Unordered batches, acknowledged by a majority and its journal, as Baler's are. */
    static final class Collection implements Sink {
        private final MongoClient client;
        private final MongoCollection<BsonDocument> collection;
        private final List<BsonDocument> batch = new ArrayList<>();
        private long bytes = 0;

        Collection(String url) {
            int slash = url.lastIndexOf('/'), question = url.indexOf('?');
            String[] namespace = url.substring(slash + 1, question).split("\\.", 2);
            client = MongoClients.create(url.substring(0, slash + 1) + url.substring(question));
            collection = client.getDatabase(namespace[0])
                    .getCollection(namespace[1], BsonDocument.class)
                    .withWriteConcern(WriteConcern.MAJORITY.withJournal(true));
        }

        @Override
        public void write(BsonDocument document) {
            batch.add(document);
            bytes += document.getBinary("data").getData().length;
            if (batch.size() >= BATCH_DOCS || bytes >= BATCH_BYTES) {
                send();
            }
        }

        private void send() {
            if (!batch.isEmpty()) {
                collection.insertMany(batch, new InsertManyOptions().ordered(false));
            }
            batch.clear();
            bytes = 0;
        }

        @Override
        public void close() {
            send();
            client.close();
        }
    }
}
